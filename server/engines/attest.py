"""Proof by behaviour: does the slot show the version's fingerprint, and the engine its contract?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from registry.clock import stamp
from registry.contract import Contract
from registry.digests import Digest
from registry.fingerprint import Attestation, Fingerprint, Nearest, TopLogprobs
from registry.judgement import UNMEASURED, Finding, judge
from registry.manifests import BlobRef
from registry.names import engine_name
from server.engines.errors import ContractMismatch, EngineAnswerUnusable


class Probed(Protocol):
    """The part of an engine that proofs need."""

    async def tokenize(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool, model: str
    ) -> tuple[int, ...]: ...

    async def probe(
        self, *, model: str, prompts: Sequence[Sequence[int]], cache_salt: str
    ) -> tuple[TopLogprobs, ...]: ...


@dataclass(frozen=True, slots=True)
class Witness:
    """Who observes: one boot of one engine."""

    engine: str
    boot: str
    engine_version: str
    dtype: Literal["float32", "bfloat16", "float16"]
    base: Digest


async def check_contract(engine: Probed, contract: Contract, *, base: Digest, model: str) -> None:
    """Every golden conversation must become exactly the token ids of training.

    ``model`` only selects the tokenizer, which vLLM takes from the base for every name. Raises
    ContractMismatch for the first difference, and for a contract that proves nothing; EngineUnreachable and a
    passing EngineAnswerUnusable, which say nothing of it.
    """
    if contract.base != base:
        raise ContractMismatch("the contract is for another base")
    if not contract.golden:
        raise ContractMismatch("the contract has no golden conversations, so nothing can be compared")
    for number, golden in enumerate(contract.golden, start=1):
        try:
            ids = await engine.tokenize(
                golden.messages, add_generation_prompt=golden.add_generation_prompt, model=model
            )
        except EngineAnswerUnusable as error:
            if error.passing:
                raise
            raise ContractMismatch(f"golden conversation {number}: {error.message}") from None
        if ids != golden.token_ids:
            at = next(
                (i for i, pair in enumerate(zip(ids, golden.token_ids, strict=False)) if pair[0] != pair[1]),
                min(len(ids), len(golden.token_ids)),
            )
            raise ContractMismatch(
                f"golden conversation {number} becomes other tokens, from position {at}", conversation=number
            )


@dataclass(frozen=True, slots=True)
class Observation:
    """What one slot showed."""

    version: Digest
    fingerprint: Fingerprint
    files: tuple[BlobRef, ...]
    seen: tuple[TopLogprobs, ...] = ()
    fault: str = ""
    """Why the answer proves nothing; empty when there is one to judge."""
    passing: bool = False
    """Whether that says nothing of the slot, and another look may show more."""


async def observe(
    engine: Probed, *, version: Digest, fingerprint: Fingerprint, files: tuple[BlobRef, ...], salt: str
) -> Observation:
    """Probe the slot of ``version``. An unusable answer is an observation with a fault; EngineUnreachable is
    raised, because silence says nothing about the slot."""
    try:
        seen = await engine.probe(
            model=engine_name(version),
            prompts=[probe.token_ids for probe in fingerprint.probes],
            cache_salt=salt,
        )
    except EngineAnswerUnusable as error:
        return Observation(version, fingerprint, files, fault=error.message, passing=error.passing)
    return Observation(version, fingerprint, files, seen=seen)


@dataclass(frozen=True, slots=True)
class Recognised:
    """A version that another look has recognised on the same engine."""

    version: Digest
    fingerprint: Fingerprint
    files: tuple[BlobRef, ...]


def judge_together(
    observations: Sequence[Observation], *, dtype: str, recognised: Sequence[Recognised] = ()
) -> dict[Digest, Finding]:
    """A finding for each observation; the other slots are what each could be mistaken for.

    In two steps, so that order does not matter and a version can only be a rival after it has shown its own
    fingerprint: a copied fingerprint would otherwise put another tenant's adapter out of service. A version
    with the same files is no rival either: the same bytes answer the same, rightly.
    """
    alone = {seen.version: _judge(seen, {}, dtype) for seen in observations}
    genuine = [seen for seen in observations if alone[seen.version].passed]
    rivals = [*recognised, *(Recognised(seen.version, seen.fingerprint, seen.files) for seen in genuine)]
    return alone | {
        seen.version: _judge(
            seen,
            {
                other.version: other.fingerprint
                for other in rivals
                if other.version != seen.version and other.files != seen.files
            },
            dtype,
        )
        for seen in genuine
    }


def _judge(seen: Observation, siblings: Mapping[Digest, Fingerprint], dtype: str) -> Finding:
    if seen.fault:
        nowhere = Nearest(what="base", distance=UNMEASURED)
        return Finding(
            own_distance=UNMEASURED, nearest=nowhere, strength="failed", passed=False, reason=seen.fault
        )
    return judge(fingerprint=seen.fingerprint, observed=seen.seen, siblings=siblings, dtype=dtype)


def attestation_of(
    finding: Finding,
    *,
    witness: Witness,
    version: Digest,
    fingerprint: Digest,
    contract: Digest,
    observed_at: datetime,
) -> Attestation:
    """The finding as the document that gets signed."""
    return Attestation(
        engine=witness.engine,
        boot=witness.boot,
        engine_version=witness.engine_version,
        dtype=witness.dtype,
        base=witness.base,
        version=version,
        fingerprint=fingerprint,
        contract=contract,
        own_distance=finding.own_distance,
        nearest=finding.nearest,
        strength=finding.strength,
        passed=finding.passed,
        reason=finding.reason,
        observed_at=stamp(observed_at),
        noise=finding.noise,
    )
