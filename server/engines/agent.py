"""Beside every vLLM: start it, give it what the registry wants, attest it, watch it, start it again."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from registry.clock import Clock
from registry.digests import Digest
from registry.errors import TenonError
from registry.feed import Snapshot, State
from registry.models import Base, EngineState
from registry.signing.keys import Signer
from server.engines.attest import Witness
from server.engines.boot import Boot
from server.engines.cache import AdapterCache
from server.engines.cadence import Cadence
from server.engines.client import VllmClient
from server.engines.command import command
from server.engines.errors import (
    EngineAnswerUnusable,
    EngineBaseUnknown,
    EngineStartFailed,
    EngineUnreachable,
)
from server.engines.metrics import AgentMetrics
from server.engines.ports import ControlPlane
from server.engines.process import EngineProcess
from server.engines.residency import Capacity
from server.engines.spec import SERVED_NAME, EngineSpec
from server.engines.state import AgentState, Event, Kind, Report, logged
from server.engines.versions import refuse_unsafe


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
    ) -> None:
        """``describe``: the base as its files say now, read again before every start (it runs in a thread).
        ``inherited``: environment from which vLLM's is picked. ``log``: vLLM's output. ``new_id``: boot ids
        and probe salts, unguessable."""
        self._spec = spec
        self._describe = describe
        self._control = control
        self._signer = signer
        self._cache = cache
        self._clock = clock
        self._inherited = inherited
        self._log = log
        self._cadence = cadence or Cadence()
        self._report_to = report
        self._new_id = new_id
        self.metrics = AgentMetrics()
        self._known: State | None = None
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._doing = "starting"
        self._boot: Boot | None = None
        self._up = False
        self._settled: int | None = None
        """Size of the state that was last acted on."""

    @property
    def state(self) -> AgentState:
        boot, up = self._boot, self._up
        if boot is None or not up:
            return AgentState(engine=self._spec.engine, doing=self._doing)
        return AgentState(
            engine=self._spec.engine,
            doing=self._doing,
            boot=boot.witness.boot,
            engine_version=boot.witness.engine_version,
            up=True,
            settled=self._known is not None and self._settled == self._known.size,
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
        reading = asyncio.create_task(self._read_feed())
        try:
            await self._until_stopped(self._supervise())
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            self._tell("stopped", "the engine is stopped")

    async def _supervise(self) -> None:
        pause, longest = self._cadence.backoff
        wait, started_once = pause, False
        while True:
            base = await self._registered_base()
            born = self._now()
            try:
                again = await self._one_boot(base)
            except EngineStartFailed as error:
                if not started_once:
                    raise
                again, why = False, error.message
            else:
                why = "the engine ended"
            started_once = True
            if again:
                continue
            if self._now() - born >= self._cadence.steady:
                wait = pause
            self._tell("down", f"{why}; next start in {wait:g} s")
            await asyncio.sleep(wait)
            wait = min(2 * wait, longest)

    async def _registered_base(self) -> Digest:
        """The digest of the files on this machine, which must be a base that the registry knows."""
        self._doing = "reading the base"
        found = await asyncio.to_thread(self._describe)
        self._doing = "waiting for the control plane"
        while self._known is None:
            self._news.clear()
            await self._news.wait()
        if found.identity() in self._known.bases:
            return found.identity()
        for base in self._known.bases.values():
            if base.name == found.name:
                wrong = [
                    field for field in Base.model_fields if getattr(base, field) != getattr(found, field)
                ]
                raise EngineBaseUnknown(
                    f"the base's files are not the registered {found.name!r}: {', '.join(wrong)} differ"
                )
        raise EngineBaseUnknown(f"no base named {found.name!r} is registered")

    async def _one_boot(self, base: Digest) -> bool:
        """One life of vLLM. True when it was ended on purpose, to start afresh at once."""
        spec = self._spec
        argv, environment = command(spec, self._inherited)
        child = EngineProcess(argv=argv, environment=environment, log=self._log)
        announced: EngineState | None = None
        async with VllmClient(spec.url) as client:
            self._tell("starting", f"starting vLLM on {spec.device} in {spec.dtype}")
            self._doing = "starting vLLM"
            try:
                if await client.answers():
                    raise EngineStartFailed(f"something else already answers at port {spec.port}")
                child.start()
                await child.wait_ready(client.answers, limit=self._cadence.start_limit)
                version = await self._examine(client)
                boot_id = self._new_id()
                announced = EngineState(
                    engine=spec.engine,
                    boot=boot_id,
                    url=spec.public_url,
                    base=base,
                    engine_version=version,
                    dtype=spec.dtype,
                    max_loras=spec.max_loras,
                )
                self._boot = self._new_boot(client, Witness(spec.engine, boot_id, version, spec.dtype, base))
                self._up = True
                self._tell("up", f"vLLM {version} answers at port {spec.port}")
                return await self._first_of(self._serve(self._boot, client, announced), child)
            except EngineUnreachable as error:
                self._tell("failed", f"the engine no longer answers: {error.message}")
                return False
            finally:
                self._up, self._boot, self._settled = False, None, None
                self._doing = "stopping vLLM"
                if announced is not None:
                    await self._farewell(announced)
                await child.stop()
                self._cache.release()

    async def _examine(self, client: VllmClient) -> str:
        """What just came up must be a safe vLLM, ours, and empty. Returns its version."""
        try:
            version = await client.version()
            names = await client.models()
        except (EngineUnreachable, EngineAnswerUnusable) as error:
            raise EngineStartFailed(error.message) from None
        refuse_unsafe(version)
        if set(names) != {SERVED_NAME}:
            raise EngineStartFailed("the engine serves names at its start that nobody gave it")
        return version

    async def _serve(self, boot: Boot, client: VllmClient, announced: EngineState) -> bool:
        """Follow the feed and the heartbeat. Returns True to be recycled; raises EngineUnreachable."""
        known = False
        misses = 0
        beat = self._now()
        while True:
            self._news.clear()
            state = self._known
            try:
                if not known:
                    self._doing = "announcing the engine"
                    await self._control.announce(announced)
                    known = True
                if state is not None:
                    self._doing = "loading and attesting adapters"
                    await boot.reconcile(state)
                    self._settled = state.size
                if boot.recycle:
                    self._tell("recycling", "all names of this boot are used up: starting afresh")
                    return True
                if self._now() - beat >= self._cadence.heartbeat:
                    beat = self._now()
                    self._doing = "attesting adapters again"
                    await self._heartbeat(boot, client)
                elif boot.unsent:
                    await boot.flush()
                misses = 0
            except EngineUnreachable:
                misses += 1
                beat -= self._cadence.heartbeat  # due again at the next turn
                if misses >= self._cadence.misses:
                    raise
                self._tell("waiting", f"the engine did not answer ({misses} of {self._cadence.misses})")
            except TenonError as error:
                self._tell("waiting", error.message)
            self._doing = "serving"
            behind = not known or boot.unsent or misses > 0 or boot.held
            pause = self._cadence.retry if behind else max(0.0, beat + self._cadence.heartbeat - self._now())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def _heartbeat(self, boot: Boot, client: VllmClient) -> None:
        if boot.resident:
            await boot.attest()
        elif not await client.health():
            raise EngineUnreachable("the engine's health check failed")

    async def _first_of(self, serving: Coroutine[Any, Any, bool], child: EngineProcess) -> bool:
        """The result of ``serving``, or False as soon as the child ends."""
        work = asyncio.create_task(serving)
        end = asyncio.create_task(child.wait())
        try:
            await asyncio.wait({work, end}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            self._tell("failed", f"vLLM ended with status {end.result()}")
            return False
        finally:
            for task in (work, end):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, TenonError):
                    await task

    async def _farewell(self, announced: EngineState) -> None:
        """Routers should hear it from us before their requests find out; but never wait long for it."""
        with contextlib.suppress(TenonError, TimeoutError):
            async with asyncio.timeout(self._cadence.goodbye):
                await self._control.announce(announced.model_copy(update={"up": False}))

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    async def _read_feed(self) -> None:
        while True:
            known = self._known
            try:
                news = await self._control.read(known.position if known else None, self._cadence.poll)
                if news is None:
                    continue
                if isinstance(news, Snapshot):
                    self._known = State.of(news)
                elif known is not None:
                    self._known = known.after(news)
            except TenonError as error:
                self._tell("waiting", error.message)
                await asyncio.sleep(self._cadence.retry)
                continue
            self._news.set()

    def _new_boot(self, client: VllmClient, witness: Witness) -> Boot:
        return Boot(
            witness=witness,
            capacity=Capacity(ready=self._spec.max_loras, names=self._spec.names, rank=self._spec.rank),
            engine=client,
            control=self._control,
            signer=self._signer,
            cache=self._cache,
            clock=self._clock,
            new_salt=self._new_id,
            republish=self._cadence.republish,
            report=self._report,
        )

    def _tell(self, kind: Kind, text: str) -> None:
        self._report(Event(kind, text))

    def _report(self, event: Event) -> None:
        self.metrics.count(event)
        self._report_to(event)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
