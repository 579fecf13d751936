"""Does the bare base behind this engine answer as the base?

Asked through the null adapter where there is one: on a CPU, vLLM 0.32 answers a bare base request that shares
a batch with an adapter's with the weights in the last slot (D1), so a base probe without it proves nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

from registry.digests import Digest
from registry.fingerprint import EXACT_F32, MAX_NOISE, Fingerprint, Probe, TopLogprobs, distance
from registry.judgement import Finding, judge_base
from server.engines.attest import Probed
from server.engines.errors import BaseUnproven, EngineAnswerUnusable

Ids = tuple[int, ...]
_PROBES: Final = 8
_TOKENS: Final = 2048
"""At most, of one fingerprint, unless its shortest probe alone has more: a tenant brought it, and all wait
while the base is asked."""
_PATIENCE: Final = 3
"""Heartbeats in a row at which vLLM may fail to answer."""


class BaseProof:
    """Versions of one base share their random probes, so the base is asked once for all of them."""

    def __init__(self, *, engine: Probed, model: str, dtype: str, new_salt: Callable[[], str]) -> None:
        self._engine = engine
        self._model = model
        self._dtype = dtype
        self._new_salt = new_salt
        self._shown: dict[Ids, TopLogprobs] = {}
        self._holds: dict[Digest, tuple[Ids, ...]] = {}
        """Fingerprints whose base reference this engine showed -> the prompts it was asked."""
        self._then: dict[tuple[Ids, ...], list[TopLogprobs]] = {}
        """What the engine showed when the first fingerprint with these prompts was held against it."""
        self._asks: defaultdict[tuple[Ids, ...], set[str]] = defaultdict(set)
        """Prompts -> the tenants that have a fingerprint with them."""
        self._unanswered = 0
        """Heartbeats in a row at which vLLM failed to answer."""

    async def fault(self, digest: Digest, fingerprint: Fingerprint, *, tenant: str) -> str | None:
        """What is wrong with the base as this fingerprint has it. One tenant's wrong reference of the base
        tells against that version only; BaseUnproven is raised by :meth:`again`. Raises EngineUnreachable
        and a passing EngineAnswerUnusable."""
        if digest not in self._holds:
            try:
                found = await self._judged(fingerprint)
            except EngineAnswerUnusable as error:
                if error.passing:
                    raise
                return error.message
            if not found.passed:
                return found.reason
            prompts = tuple(row.token_ids for row in _sample(fingerprint))
            self._then.setdefault(prompts, [self._shown[ids] for ids in prompts])
            self._holds[digest] = prompts
        self._asks[self._holds[digest]].add(tenant)
        return None

    async def again(self) -> None:
        """Whether the base still answers as it did in this boot, to the prompts that most tenants have, or to
        the most prompts of those. By what it answered then and not by a reference: that is a tenant's to
        write, and a base that is held against it could end everybody's boot, or pass whatever it answers.

        Raises BaseUnproven, EngineUnreachable.
        """
        self._shown.clear()
        if not self._asks:
            return
        prompts = max(self._asks, key=lambda each: (len(self._asks[each]), len(each)))
        try:
            await self._ask(prompts)
        except EngineAnswerUnusable as error:
            self._unanswered += 1
            if error.passing and self._unanswered < _PATIENCE:
                return
            raise BaseUnproven(error.message) from None
        self._unanswered = 0
        try:
            off = distance([self._shown[ids] for ids in prompts], self._then[prompts])
        except ValueError as error:
            raise BaseUnproven(f"the base no longer answers: {error}") from None
        limit = EXACT_F32 if self._dtype == "float32" else MAX_NOISE
        if not off <= limit:
            raise BaseUnproven(f"the base no longer answers as it did: {off:.3g} apart, at most {limit:g}")

    async def _judged(self, fingerprint: Fingerprint) -> Finding:
        rows = _sample(fingerprint)
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


def _sample(fingerprint: Fingerprint) -> tuple[Probe, ...]:
    """The shortest random probes, or the shortest of all where there are none."""
    rows = [probe for probe in fingerprint.probes if probe.kind == "random"] or fingerprint.probes
    rows = sorted(rows, key=lambda probe: len(probe.token_ids))[:_PROBES]
    while len(rows) > 1 and sum(len(probe.token_ids) for probe in rows) > _TOKENS:
        rows.pop()
    return tuple(rows)
