"""Beside every vLLM: start it, give it what the registry wants, attest it, watch it, start it again."""

import asyncio
import contextlib
import secrets
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from registry.clock import Clock
from registry.digests import Digest
from registry.errors import BaseInvalid, TenonError
from registry.feed import State
from registry.fleet import assigned
from registry.models import Base, EngineState
from registry.signing.keys import Signer
from server.engines.absent import Absent
from server.engines.cache import AdapterCache
from server.engines.cadence import Cadence
from server.engines.chances import Chances
from server.engines.command import inherited_of
from server.engines.errors import EngineBaseUnknown, EngineStartFailed, EngineTaken
from server.engines.following import Following
from server.engines.life import Ending, Life, merged_spec
from server.engines.merges import Merges
from server.engines.metrics import AgentMetrics
from server.engines.null import null_adapter
from server.engines.ports import ControlPlane
from server.engines.residency import outlook, stands_alone
from server.engines.sizes import Sizes, sizes
from server.engines.spec import EngineSpec
from server.engines.state import AgentState, Event, Kind, Report, logged
from server.engines.surroundings import Surroundings
from server.engines.suspects import Suspects

MERGE = (sys.executable, "-m", "server.engines.merging")
T = TypeVar("T")


class Agent:
    """Run it with :meth:`run`; everything else may be called from the same loop at any time."""

    def __init__(
        self,
        *,
        spec: EngineSpec,
        describe: Callable[[], Base],
        control: ControlPlane,
        signer: Signer,
        cache: AdapterCache,
        clock: Clock,
        inherited: Mapping[str, str],
        log: Path,
        cadence: Cadence | None = None,
        report: Report = logged,
        new_id: Callable[[], str] = lambda: secrets.token_hex(16),
        merge: tuple[str, ...] = MERGE,
        guard: Path | None = None,
    ) -> None:
        """``describe``: the base as its files say now, read again before every start (it runs in a thread).
        ``inherited``: environment from which vLLM's is picked. ``log``: vLLM's output. ``new_id``: boot ids
        and probe salts, unguessable. ``merge``: program of :class:`server.engines.merges.Merges`.
        ``guard``: folder for what the guard inside vLLM reports; None runs vLLM without it."""
        self._spec = spec
        self._describe = describe
        self._cadence = cadence or Cadence()
        self._report_to = report
        self._clock = clock
        self.metrics = AgentMetrics()
        self._stopping = asyncio.Event()
        self._doing = "starting"
        self._life: Life | None = None
        self._grows_to = 0
        self._following = Following(control, self._cadence, lambda text: self._tell("waiting", text))
        self._merges = Merges(
            cache=cache,
            control=control,
            base=spec.folder,
            program=merge,
            environment=inherited_of(inherited) | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"},
            log=log.with_name("merge.log"),
            report=self._report,
            done=self._following.news.set,
            again=self._cadence.merge_again,
        )
        self._cache = cache
        self._around = Surroundings(
            control=control,
            signer=signer,
            cache=cache,
            merges=self._merges,
            clock=clock,
            inherited=inherited,
            log=log,
            cadence=self._cadence,
            report=self._report,
            new_id=new_id,
            following=self._following,
            stopping=self._stopping,
            null=self._null_files,
            guard=guard,
            absent=Absent(self._cadence.start_limit, self._now),
            chances=Chances(pauses=self._cadence.afresh, now=self._now),
            suspects=Suspects(pause=self._cadence.backoff[1]),
        )

    @property
    def state(self) -> AgentState:
        life, known = self._life, self._following.known
        boot = life.boot if life else None
        doing = life.doing if life else self._doing
        if boot is None or life is None:
            return AgentState(engine=self._spec.engine, doing=doing)
        return AgentState(
            engine=self._spec.engine,
            doing=doing,
            boot=boot.witness.boot,
            engine_version=boot.witness.engine_version,
            up=True,
            settled=known is not None and life.settled == known.size,
            merged=boot.weights.merged,
            waits_for=life.waits_for,
            guard=life.watched(),
            attest_age=boot.attest_age,
            ready=boot.ready(),
            not_ready=boot.not_ready(),
            retired=boot.retired(),
        )

    def stop(self) -> None:
        """Ask :meth:`run` to end in an orderly way."""
        self._stopping.set()

    async def run(self) -> None:
        """Until :meth:`stop`. However it ends, vLLM is gone and announced as down.

        Raises EngineBaseUnknown, EngineUnsafeVersion, and EngineStartFailed when already the first start
        fails; after one good start it keeps trying.
        """
        await asyncio.to_thread(self._cache.sweep)
        reading = asyncio.create_task(self._following.run())
        try:
            await self._supervise()
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            await self._merges.close()
            self._tell("stopped", "the engine is stopped")

    async def _supervise(self) -> None:
        pause, longest = self._cadence.backoff
        wait, started_once = pause, False
        while True:
            born = self._now()
            try:
                if (found := await self._unless_stopped(self._next())) is None:
                    return
                born = self._now()
                self._life = Life(self._around, found[0], found[1])
                ending, why = await self._life.run(), "the engine ended"
                self._grows_to = self._life.grows_to
            except (EngineStartFailed, BaseInvalid, OSError) as error:
                # A disk that is full or away for a moment must not take a good engine out for good.
                if not started_once:
                    raise error if isinstance(error, TenonError) else EngineStartFailed(_why(error)) from None
                ending, why = Ending.FAILED, _why(error)
            except EngineTaken as error:
                self._life = None
                self._tell("taken", f"{error.message}: standing by until it is gone")
                ending, why = await self._stand_by(), "the engine's name is free again"
            finally:
                self._life = None
            started_once = True
            if ending is Ending.STOPPED:
                return
            if ending is Ending.RENEWED:
                continue
            if self._now() - born >= self._cadence.steady:
                wait = pause
            self._doing = "waiting to start again"
            self._tell("down", f"{why}; next start in {wait:g} s")
            if await self._unless_stopped(asyncio.sleep(wait, result=True)) is None:
                return
            wait = min(2 * wait, longest)

    async def _next(self) -> tuple[EngineSpec, Digest]:
        """What to start, and on which base."""
        base = await self._registered_base()
        state = self._following.known
        share = assigned(state, self._clock.now()).get(self._spec.engine) if state else None
        if share is None or share.merged is None or state is None:
            return self._sized(state, base), base
        self._doing = "merging"
        try:
            folder = await self._merges.folder(share.merged, state.bases[base])
        except TenonError as error:
            self._tell("waiting", f"{share.merged.short}: {error.message}")
            return self._sized(state, base), base
        await asyncio.to_thread(self._merges.begin, share.merged)
        return merged_spec(self._spec, share.merged, folder), base

    def _sized(self, state: State | None, base: Digest) -> EngineSpec:
        """For what will be wanted of this engine once it is up. By itself it is made for the largest rank
        served: it could not start afresh for a larger one without interrupting everybody."""
        spec = self._spec
        if spec.lora_sizes == "bound" or state is None:
            return spec
        up = EngineState(
            engine=spec.engine,
            boot="not-started-yet",
            url=spec.public_url,
            base=base,
            engine_version="unknown",
            dtype=spec.dtype,
            max_loras=spec.max_loras,
            names=spec.names,
            max_rank=spec.rank,
        )
        if stands_alone(state, up, pool_size=spec.pool_size):
            return spec
        state = replace(state, engines={**state.engines, spec.engine: up})
        bounds = Sizes(rank=spec.rank, names=spec.names)
        wanted = [each.rank for each in outlook(state, spec.engine, self._clock.now()).share.versions]
        return replace(spec, sizes=sizes([*wanted, self._grows_to] if self._grows_to else wanted, bounds))

    async def _registered_base(self) -> Digest:
        """The digest of the files on this machine, which must be a base that the registry knows."""
        self._doing = "reading the base"
        found = await asyncio.to_thread(self._describe)
        self._doing = "waiting for the control plane"
        known = (await self._following.until(lambda state: True)).bases
        if found.identity() in known:
            return found.identity()
        for base in known.values():
            if base.name == found.name:
                wrong = [
                    field for field in Base.model_fields if getattr(base, field) != getattr(found, field)
                ]
                raise EngineBaseUnknown(
                    f"the base's files are not the registered {found.name!r}: {', '.join(wrong)} differ"
                )
        raise EngineBaseUnknown(f"no base named {found.name!r} is registered")

    async def _stand_by(self) -> Ending:
        """Until whoever took the engine's name is down. The later one goes on, so that two never fight."""
        self._doing = "standing by: another agent runs this engine"
        engine = self._spec.engine
        free = self._following.until(
            lambda state: (other := state.engines.get(engine)) is None or not other.up
        )
        return Ending.STOPPED if await self._unless_stopped(free) is None else Ending.FAILED

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T | None:
        """None when it is to stop; what ``work`` was doing is cancelled then."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    def _null_files(self) -> Mapping[str, bytes]:
        known = self._following.known
        assert known is not None
        base = next(base for base in known.bases.values() if base.name == self._spec.base_name)
        return null_adapter(base)

    def _tell(self, kind: Kind, text: str) -> None:
        self._report(Event(kind, text))

    def _report(self, event: Event) -> None:
        self.metrics.count(event)
        self._report_to(event)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _why(error: TenonError | OSError) -> str:
    return error.message if isinstance(error, TenonError) else f"{error.strerror or 'a file is gone'}"
