"""Which adapter is in that slot? A version's reference behaviour, and how far an engine's answer is from it.

Nothing in vLLM's answer proves which adapter gave it (``model`` echoes the request), so a version is
recognised by what it does: the log-probabilities of the first generated token on fixed probe prompts.
Measurements behind the constants: docs/concepts/attestation.md.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

from pydantic import Field

from registry.canonical import Document, later
from registry.digests import Digest
from registry.names import Name

TOP_OBSERVED = 20
"""Log-probabilities read per probe (vLLM's default ceiling)."""
TOP_REFERENCE = 64
"""Kept per probe in a reference: more than observed, so that near ties swap without a miss."""

MAX_PROBES = 64
MAX_PROBE_TOKENS = 8192
MAX_TOKENS = 131_072
"""Of all probes together. Whoever pushes chooses what an engine that others share computes for it, after each
load and in rounds. A fingerprint has 1,000 to 2,000 as a rule; sixteen probes as long as they may be fit, and
sixty-four of 2,048."""
COMMON_PROBES = 8
"""Random probes that all versions of a base begin with, so that any two compare. A version is compared with
whoever has all of its own: whoever pushes chooses what to share, and on one probe rounding is a matter of
luck."""
_LOGPROBS = (-1e6, 1e-4)
"""Any model's are within, with room for rounding. Sums of the largest numbers are no numbers any more."""
_TOKEN_IDS = 2**31
"""Engines keep them in 32 bits. How many the base has is not in its document: vLLM refuses what is beyond."""

EXACT_F32 = 1e-5
"""Measured: 6.5e-7 for the worst of 42 adapters, float32 server against float32 reference."""
MIN_RATIO = 3.0
"""The nearest other reference must be this many times farther than the own one (measured: 9.6 and more)."""
MIN_SEPARATION = 5.0
"""References this many times the noise apart can be told from each other: whoever is within 1.25 times the
noise of one is then at least MIN_RATIO times farther from the other."""
MAX_NOISES = 3.0
"""A weakly attested slot is no farther from its reference than this many times the noise."""
STRAY_NOISES = 10.0
"""An own distance beyond it is no rounding on any device, however far every other reference is."""
MAX_NOISE = 0.2
"""The largest noise that is believed (measured in bfloat16: 0.011 to 0.062 for small bases)."""
ZERO_EFFECT = 1e-4
"""Mean |Δ log-probability|. Ten times EXACT_F32: below it no engine tells an adapter from its base."""

TopLogprobs: TypeAlias = tuple[tuple[int, float], ...]
"""(token id, natural-log probability), most likely first."""

Rounded: TypeAlias = Literal["bfloat16", "float16"]
"""The types in which an engine's answer is off by far more than the order of its sums."""


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
    noise: dict[Rounded, float] = later({})
    """How far the same model on the same probes is from ``own`` in that type: measured, where it was."""
    weak: tuple[Rounded, ...] = later(())
    """Types in which no probe was found that sets the version apart from its base: attested weakly there."""
    alike: dict[Rounded, tuple[Digest, ...]] = later({})
    """Versions of the same adapter that it cannot be told from in that type: there only digests tell."""

    def trusted_noise(self, dtype: str) -> float | None:
        """None where nothing was measured. Whoever pushes writes this figure, so a large one is not believed:
        it would make every adapter look like this one."""
        found = next((value for known, value in self.noise.items() if known == dtype), None)
        return found if found is not None and 0 < found <= MAX_NOISE else None

    @property
    def effect(self) -> float:
        """``distance_to_base`` again from the probes: whoever pushes writes that figure as well."""
        return distance([probe.own[:TOP_OBSERVED] for probe in self.probes], [p.base for p in self.probes])


Strength: TypeAlias = Literal["exact", "ratio", "weak", "failed"]
"""``exact``: float32, equal to rounding. ``ratio``: own reference nearer than any other by MIN_RATIO.
``weak``: as near as rounding allows, and so is another reference: it could be either, and only the digest of
what was loaded says which."""


class Nearest(Document):
    """The closest reference that is *not* the expected version."""

    what: str
    """``base`` or a sibling's version digest."""
    distance: float
    own: float | None = later(None)
    """Distance to the own reference on the same probes, where these are not all: a sibling shares some. Only
    these two can be compared."""


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
    strength: Strength
    passed: bool
    reason: str
    observed_at: str
    noise: float | None = later(None)
    """Of the fingerprint in this dtype, as far as it was used: what a weak finding rests on."""


def beyond_bounds(fingerprint: Fingerprint) -> str | None:
    """What of it no trainer makes and no engine is asked; None when there is nothing."""
    return next(_excesses(fingerprint.probes), None)


def _excesses(probes: Sequence[Probe]) -> Iterator[str]:
    """The count first: whoever asks for one of these looks no further."""
    if len(probes) > MAX_PROBES:
        yield f"{len(probes)} probes, at most {MAX_PROBES} are possible"
    asked: dict[tuple[int, ...], int] = {}
    for number, probe in enumerate(probes):
        if len(probe.token_ids) > MAX_PROBE_TOKENS:
            yield f"probe {number}: {len(probe.token_ids)} tokens, at most {MAX_PROBE_TOKENS} are possible"
        if not all(0 <= token < _TOKEN_IDS for token in probe.token_ids):
            yield f"probe {number}: a number that is no token id"
        if (first := asked.setdefault(probe.token_ids, number)) != number:
            yield f"probe {number}: the same as probe {first}"
        for what, table in (("own", probe.own), ("base", probe.base)):
            if not TOP_OBSERVED <= len(table) <= TOP_REFERENCE:
                yield f"probe {number}: {what} must hold {TOP_OBSERVED} to {TOP_REFERENCE} tokens"
            if not all(_LOGPROBS[0] <= logprob <= _LOGPROBS[1] for _, logprob in table):
                yield f"probe {number}: {what} holds a number that is no log-probability"
    if (tokens := sum(len(probe.token_ids) for probe in probes)) > MAX_TOKENS:
        yield f"{tokens} tokens in all probes, at most {MAX_TOKENS} are possible"


def comparable(one: Fingerprint, other: Fingerprint) -> list[tuple[int, TopLogprobs]]:
    """(place among the probes of ``one``, what ``other`` answers there), of all probes of one kind that both
    have. Empty when ``other`` lacks one of the first COMMON_PROBES random ones of ``one``."""
    theirs = {(probe.kind, probe.token_ids): probe.own for probe in other.probes}
    random = [(probe.kind, probe.token_ids) for probe in one.probes if probe.kind == "random"]
    if not all(key in theirs for key in random[:COMMON_PROBES]):
        return []
    keys = [(probe.kind, probe.token_ids) for probe in one.probes]
    return [(place, theirs[key]) for place, key in enumerate(keys) if key in theirs]


def apart(one: Fingerprint, other: Fingerprint) -> float | None:
    """How far two references are from each other where they are comparable; None where they are not."""
    shared = comparable(one, other)
    if not shared:
        return None
    ours = [one.probes[place].own[:TOP_OBSERVED] for place, _ in shared]
    found = distance(ours, [reference for _, reference in shared])
    return found if math.isfinite(found) else None


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
