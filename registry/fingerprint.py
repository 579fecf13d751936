"""Which adapter is in that slot? A version's reference behaviour, and how far an engine's answer is from it.

Nothing in vLLM's answer proves which adapter gave it (``model`` echoes the request), so a version is
recognised by what it does: the log-probabilities of the first generated token on fixed probe prompts.
Measurements behind the constants: docs/concepts/attestation.md.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.names import Name

TOP_OBSERVED = 20
"""Log-probabilities read per probe (vLLM's default ceiling)."""
TOP_REFERENCE = 64
"""Kept per probe in a reference: more than observed, so that near ties swap without a miss."""

TopLogprobs: TypeAlias = tuple[tuple[int, float], ...]
"""(token id, natural-log probability), most likely first."""


class Probe(Document):
    kind: Literal["random", "tenant"]
    """``random``: the same for all versions of a base, so that siblings compare.
    ``tenant``: close to the decisions that the version was trained for."""
    token_ids: tuple[int, ...] = Field(min_length=1)
    own: TopLogprobs
    """Reference of this version, float32, transformers + PEFT; length TOP_REFERENCE."""
    base: TopLogprobs
    """Reference of the bare base on the same prompt."""


class Fingerprint(Document):
    base: Digest
    probes: tuple[Probe, ...] = Field(min_length=1)
    distance_to_base: float
    """Mean over probes of :func:`distance` between ``own`` and ``base``: how recognisable the version is."""


class Nearest(Document):
    """The closest reference that is *not* the expected version."""

    what: str
    """``base`` or a sibling's version digest."""
    distance: float


class Attestation(Document):
    """The finding that an engine's slot showed (or did not show) a version's fingerprint and contract."""

    kind: Literal["tenon.attestation/v1"] = "tenon.attestation/v1"
    engine: Name
    boot: str
    engine_version: str
    dtype: Literal["float32", "bfloat16", "float16"]
    base: Digest
    version: Digest
    fingerprint: Digest
    contract: Digest
    own_distance: float
    nearest: Nearest
    strength: Literal["exact", "ratio", "failed"]
    """``exact``: float32, equal to rounding. ``ratio``: own reference nearer than any other by MIN_RATIO."""
    passed: bool
    reason: str
    observed_at: str


EXACT_F32 = 1e-5
"""Measured: 6.5e-7 for the worst of 42 adapters, float32 server against float32 reference."""
MIN_RATIO = 3.0
"""The nearest other reference must be this many times farther than the own one (measured: 9.6 and more)."""


def distance(observed: Sequence[Sequence[tuple[int, float]]], reference: Sequence[TopLogprobs]) -> float:
    """Mean absolute difference of log-probabilities, over all probes and observed tokens.

    A token missing in the reference counts as its smallest entry: it is at most that likely there.
    Raises ValueError when the numbers of probes differ or nothing was observed.
    """
    if len(observed) != len(reference) or not observed:
        raise ValueError(f"{len(observed)} observed probes, {len(reference)} in the reference")
    total, count = 0.0, 0
    for seen, expected in zip(observed, reference, strict=True):
        if not seen or not expected:
            raise ValueError("a probe without log-probabilities")
        table = dict(expected)
        floor = min(table.values())
        for token, logprob in seen:
            total += abs(logprob - table.get(token, floor))
            count += 1
    return total / count
