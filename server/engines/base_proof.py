"""Does the bare base behind this engine answer as the base?

Asked through the null adapter where there is one: on a CPU, vLLM 0.32 answers a bare base request that shares
a batch with an adapter's with the weights in the last slot (D1), so a base probe without it proves nothing.
"""

import random
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
_LENGTH: Final = 16
"""Of a prompt of heartbeats."""
_IDS: Final = range(3, 256)
"""Every vocabulary has them."""
_PATIENCE: Final = 3
"""Heartbeats in a row at which vLLM may fail to answer."""


class BaseProof:
    """Versions of one base share their random probes, so the base is asked once for all of them. What it is
    asked at heartbeats is no tenant's: prompts can be chosen such that rounding moves their answers, or that
    vLLM fails, and that ends everybody's boot."""

    def __init__(
        self, *, engine: Probed, model: str, base: Digest, dtype: str, new_salt: Callable[[], str]
    ) -> None:
        self._engine = engine
        self._model = model
        self._dtype = dtype
        self._new_salt = new_salt
        self._prompts = _prompts(base)
        """Of heartbeats."""
        self._then: tuple[TopLogprobs, ...] = ()
        """What the engine showed for them before anything of a tenant was judged or loaded."""
        self._shown: dict[Ids, TopLogprobs] = {}
        """What it showed for fingerprints' prompts since the last heartbeat."""
        self._holds: set[Digest] = set()
        """Fingerprints whose base reference this engine showed."""
        self._unanswered = 0
        """Heartbeats in a row at which vLLM failed to answer."""

    async def fault(self, digest: Digest, fingerprint: Fingerprint) -> str | None:
        """What is wrong with the base as this fingerprint has it. One tenant's wrong reference of the base
        tells against that version only. Raises EngineUnreachable and a passing EngineAnswerUnusable;
        BaseUnproven where vLLM refuses the prompts of heartbeats, which is no version's fault."""
        if digest in self._holds:
            return None
        if not self._then:
            await self._look_first()
        try:
            found = await self._judged(fingerprint)
        except EngineAnswerUnusable as error:
            if error.passing:
                raise
            return error.message
        if not found.passed:
            return found.reason
        self._holds.add(digest)
        return None

    async def again(self) -> None:
        """Whether the base still answers as it did when it was first asked in this boot. By what it answered
        then and not by a reference: that is a tenant's to write, and a base that is held against it could end
        everybody's boot, or pass whatever it answers.

        Raises BaseUnproven, EngineUnreachable.
        """
        self._shown.clear()
        if not self._then:
            return
        try:
            now = await self._ask(self._prompts)
        except EngineAnswerUnusable as error:
            self._unanswered += 1
            if error.passing and self._unanswered < _PATIENCE:
                return
            raise BaseUnproven(error.message) from None
        self._unanswered = 0
        try:
            off = distance(now, self._then)
        except ValueError as error:
            raise BaseUnproven(f"the base no longer answers: {error}") from None
        limit = EXACT_F32 if self._dtype == "float32" else MAX_NOISE
        if not off <= limit:
            raise BaseUnproven(f"the base no longer answers as it did: {off:.3g} apart, at most {limit:g}")

    async def _look_first(self) -> None:
        try:
            self._then = await self._ask(self._prompts)
        except EngineAnswerUnusable as error:
            if error.passing:
                raise
            raise BaseUnproven(error.message) from None

    async def _judged(self, fingerprint: Fingerprint) -> Finding:
        rows = _sample(fingerprint)
        if unseen := [row.token_ids for row in rows if row.token_ids not in self._shown]:
            self._shown.update(zip(unseen, await self._ask(unseen), strict=True))
        return judge_base(
            fingerprint=fingerprint.model_copy(update={"probes": rows}),
            observed=[self._shown[row.token_ids] for row in rows],
            dtype=self._dtype,
        )

    async def _ask(self, prompts: Sequence[Ids]) -> tuple[TopLogprobs, ...]:
        return await self._engine.probe(model=self._model, prompts=prompts, cache_salt=self._new_salt())


def _prompts(base: Digest) -> tuple[Ids, ...]:
    """The same in every boot of ``base``."""
    drawn = random.Random(f"base:{base}")  # noqa: S311 - public on purpose
    return tuple(tuple(drawn.choices(_IDS, k=_LENGTH)) for _ in range(_PROBES))


def _sample(fingerprint: Fingerprint) -> tuple[Probe, ...]:
    """The shortest random probes, or the shortest of all where there are none."""
    rows = [probe for probe in fingerprint.probes if probe.kind == "random"] or fingerprint.probes
    rows = sorted(rows, key=lambda probe: len(probe.token_ids))[:_PROBES]
    while len(rows) > 1 and sum(len(probe.token_ids) for probe in rows) > _TOKENS:
        rows.pop()
    return tuple(rows)
