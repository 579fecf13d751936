"""Does the bare base behind this engine answer as the base?

Asked through the null adapter where there is one: on a CPU, vLLM 0.32 answers a bare base request that shares
a batch with an adapter's with the weights in the last slot (D1), so a base probe without it proves nothing.
"""

from collections.abc import Callable, Sequence

from registry.digests import Digest
from registry.fingerprint import Fingerprint, TopLogprobs
from registry.judgement import Finding, judge_base
from server.engines.attest import Probed
from server.engines.errors import BaseUnproven, EngineAnswerUnusable

Ids = tuple[int, ...]


class BaseProof:
    """Versions of one base share their random probes, so the base is asked once for all of them."""

    def __init__(self, *, engine: Probed, model: str, dtype: str, new_salt: Callable[[], str]) -> None:
        self._engine = engine
        self._model = model
        self._dtype = dtype
        self._new_salt = new_salt
        self._shown: dict[Ids, TopLogprobs] = {}
        self._holds: dict[Digest, Fingerprint] = {}
        """By the fingerprint's digest: those whose base reference this engine showed."""

    async def fault(self, digest: Digest, fingerprint: Fingerprint) -> str | None:
        """What is wrong with the base as this fingerprint has it. One tenant's wrong reference of the base
        tells against that version only; BaseUnproven is raised by :meth:`again`. Raises EngineUnreachable
        and a passing EngineAnswerUnusable."""
        if digest in self._holds:
            return None
        try:
            found = await self._judged(fingerprint)
        except EngineAnswerUnusable as error:
            if error.passing:
                raise
            return error.message
        if not found.passed:
            return found.reason
        self._holds[digest] = fingerprint
        return None

    async def again(self) -> None:
        """Whether the base still answers as it did. One that has changed answers as none of its references; a
        reference that a tenant made a little off, so that it held once, must not end everybody's engine.
        Raises BaseUnproven, EngineUnreachable."""
        self._shown.clear()
        reason = ""
        for fingerprint in self._holds.values():
            try:
                found = await self._judged(fingerprint)
            except EngineAnswerUnusable as error:
                raise BaseUnproven(error.message) from None
            if found.passed:
                return
            reason = reason or found.reason
        if reason:
            raise BaseUnproven(f"the base no longer answers as its reference: {reason}")

    async def _judged(self, fingerprint: Fingerprint) -> Finding:
        rows = tuple(probe for probe in fingerprint.probes if probe.kind == "random") or fingerprint.probes
        await self._ask([row.token_ids for row in rows if row.token_ids not in self._shown])
        return judge_base(
            fingerprint=fingerprint.model_copy(update={"probes": rows}),
            observed=[self._shown[row.token_ids] for row in rows],
            dtype=self._dtype,
        )

    async def _ask(self, prompts: Sequence[Ids]) -> None:
        if not prompts:
            return
        answers = await self._engine.probe(model=self._model, prompts=prompts, cache_salt=self._new_salt())
        self._shown.update(zip(prompts, answers, strict=True))
