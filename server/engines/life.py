"""One life of one vLLM, from its start to its end, and what the registry is told of it meanwhile."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

from registry.catalog.errors import EngineDown
from registry.digests import Digest
from registry.errors import TenonError
from registry.feed import State
from registry.models import EngineState
from registry.signing.types import ANNOUNCEMENT
from server.engines import guarded
from server.engines.alive import saying_alive
from server.engines.boot import Boot
from server.engines.client import VllmClient
from server.engines.command import command
from server.engines.drain import Drain, drained, vacating
from server.engines.errors import (
    BaseUnproven,
    CacheDamaged,
    EngineMisannounced,
    EngineStartFailed,
    EngineTaken,
    EngineUnguarded,
    EngineUnreachable,
    refusal,
)
from server.engines.opening import Opening
from server.engines.patience import Patience
from server.engines.plugin.violations import Violation
from server.engines.process import EngineProcess
from server.engines.residency import Renewal
from server.engines.spec import EngineSpec
from server.engines.state import Event
from server.engines.surroundings import Surroundings

_GRACE = 5.0
"""Seconds that vLLM gets to end by itself: it is idle by then, or has failed."""


class Ending(Enum):
    RENEWED = "renewed"
    """On purpose: a fresh boot does what this one could not."""
    STOPPED = "stopped"
    DAMAGED = "damaged"
    """Its files on disk are not what they were; what it is answering right now is not touched by that."""
    FAILED = "failed"


class Life:
    def __init__(self, around: Surroundings, spec: EngineSpec, base: Digest) -> None:
        """``spec``: of what is started now, merged or not."""
        self._around = around
        self._spec = spec
        self._base = base
        self.doing = "starting vLLM"
        self.boot: Boot | None = None
        """While it is up."""
        self.settled: int | None = None
        """Size of the state that was last acted on."""
        self.waits_for = ""
        """Why a fresh boot that is needed does not start yet."""
        self._announced: EngineState | None = None
        self._told = False
        self._told_down = False
        self._hung = False
        self._seen_up = False
        self._made: float | None = None
        """Tokens that vLLM said it had made."""
        self._owing_since: float | None = None
        """When the first load was after which not all were looked at again."""
        self._patience = Patience(around.cadence.patience)
        self.grows_to = 0
        """The rank that the next boot has to hold: what it is for may be given up meanwhile."""
        self._rests_until = 0.0
        """Before, no look of a round: they take no more of the engine than their share."""
        self._looked = 0.0
        """Seconds of looks since the last heartbeat."""

    async def run(self) -> Ending:
        """Raises EngineStartFailed, EngineUnsafeVersion, EngineTaken. However it ends, vLLM is gone then."""
        around = self._around
        spec = self._spec = self._with_guard()
        argv, environment = command(spec, around.inherited)
        child = EngineProcess(argv=argv, environment=environment, log=around.log, grace=_GRACE)
        async with VllmClient(spec.url) as client:
            self._tell("starting", f"starting vLLM on {spec.device} in {spec.dtype}")
            try:
                started = self._start(client, child)
                if (boot := await self._unless_stopped(started)) is None:
                    return Ending.STOPPED
                self.boot = boot
                said = saying_alive(
                    around.control, spec.engine, boot.witness.boot, every=around.cadence.alive
                )
                async with said:
                    ending = await self._first_of(self._serve(boot, client), child)
                if ending is Ending.RENEWED:
                    ending = await self._first_of(self._vacate(client), child)
                if ending in (Ending.STOPPED, Ending.DAMAGED):
                    cadence = around.cadence
                    await self._drain(client, Drain(quiet=cadence.quiet, limit=cadence.drain))
                return ending
            except EngineTaken:
                self._hung = True
                raise
            except EngineUnreachable as error:
                self._tell("failed", f"the engine no longer answers: {error.message}")
                self._hung = True
                return Ending.FAILED
            finally:
                self.boot, self.settled = None, None
                self.doing = "stopping vLLM"
                await self._farewell()
                if self._hung:
                    await asyncio.to_thread(child.kill)  # it would only sit out the grace
                await child.stop()
                around.cache.release()
                if spec.guard is not None:
                    await asyncio.to_thread(guarded.tidy, spec.guard.parent)

    async def _start(self, client: VllmClient, child: EngineProcess) -> Boot:
        opening = Opening(self._around, self._spec, self._base, client)
        await opening.start(child)
        self.doing = "examining vLLM"
        boot, self._announced = await opening.examine()
        self._tell("up", f"vLLM {boot.witness.engine_version} answers at {self._spec.where}")
        return boot

    def watched(self) -> guarded.Totals | None:
        """What the guard has counted so far; None without one, or while its counters cannot be read."""
        if self.boot is None or self._spec.guard is None:
            return None
        try:
            return guarded.totals(self._spec.guard.parent)
        except EngineUnguarded:
            return None

    def _with_guard(self) -> EngineSpec:
        spec, around = self._spec, self._around
        if around.guard is None:
            return spec
        try:
            told = guarded.prepare(
                around.guard / around.new_id(), cache=around.cache.root, isolate_base=spec.device == "cpu"
            )
        except OSError as error:
            around.cache.make_room(0)  # the next start finds it, where the disk was full of adapters
            raise EngineStartFailed(f"the guard's folder cannot be made: {error.strerror}") from None
        return replace(spec, guard=told)

    async def _serve(self, boot: Boot, client: VllmClient) -> Ending:
        """Follow the feed and the heartbeat. Raises EngineUnreachable, EngineTaken."""
        around, cadence = self._around, self._around.cadence
        news = around.following.news
        misses, beat, waiting = 0, self._now(), True
        while True:
            news.clear()
            waiting, looking = True, False
            try:
                if (over := await self._acted(boot)) is True:
                    return Ending.RENEWED
                waiting = over is None
                if self._now() - beat >= cadence.heartbeat:
                    beat = self._now()
                    self.doing = "attesting adapters again"
                    await self._heartbeat(boot, client)
                elif boot.unsent:
                    await boot.flush()
                client.limit(cadence.answer)
                await self._let_settle(boot)
                while not news.is_set() and await self._look(boot):
                    pass
                looking = boot.looking
                misses = 0
            except EngineUnreachable:
                waiting = True
                if await self._progresses(client):
                    self._tell("waiting", "the engine is too busy to answer in time")
                    misses -= 1
                misses += 1
                beat -= cadence.heartbeat  # due again at the next turn
                if misses >= cadence.misses:
                    raise
                self._tell("waiting", f"the engine did not answer ({misses} of {cadence.misses})")
            except CacheDamaged as error:
                self._tell("failed", f"{error.code}: {error.message}")
                # What vLLM works with was verified when it was read, and the guard lets it read nothing else.
                return Ending.FAILED if self._spec.guard is None else Ending.DAMAGED
            except (BaseUnproven, EngineMisannounced, EngineUnguarded) as error:
                self._tell("failed", f"{error.code}: {error.message}")
                return Ending.FAILED
            except TenonError as error:
                waiting = True
                self._wait(error)
            self.doing = "serving"
            until = self._next_turn(boot, beat + cadence.heartbeat, waiting=waiting, looking=looking)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until - self._now())):
                    await news.wait()

    def _next_turn(self, boot: Boot, beat: float, *, waiting: bool, looking: bool) -> float:
        """When, if no news come before. ``beat``: the next heartbeat."""
        # Time alone changes nothing for a fresh boot that does not hurry.
        behind = waiting or boot.unsent or (boot.renewal is not None and boot.renewal.hurries)
        until = self._now() + self._around.cadence.retry if behind else beat
        if boot.due is not None and not waiting:  # a turn that failed may not have come as far as what is due
            until = min(until, boot.due)
        return min(until, self._rests_until) if looking else until

    async def _acted(self, boot: Boot) -> bool | None:
        """:meth:`_turn`, or None when the control plane did not take something: the engine may hang meanwhile
        and is looked at all the same."""
        try:
            return await self._turn(boot)
        except (EngineUnreachable, CacheDamaged, BaseUnproven, EngineMisannounced, EngineUnguarded):
            raise
        except TenonError as error:
            self._wait(error)
            return None

    def _wait(self, error: TenonError) -> None:
        """For what the control plane did not take. Raises EngineTaken."""
        if refusal(error) == EngineDown.code:
            self._told = False  # taken for dead, and nobody has its name: the next turn announces it again
        if refusal(error) in ("engine_replaced", "engine_held", EngineTaken.code):
            raise EngineTaken("another agent runs this engine") from None
        self._tell("waiting", error.message)

    async def _let_settle(self, boot: Boot) -> None:
        if not boot.owing:
            self._owing_since = None
            return
        now, settle = self._now(), self._around.cadence.settle
        if self._owing_since is None:
            self._owing_since = now
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(settle, self._owing_since + 4 * settle - now))):
                await self._around.following.news.wait()

    async def _look(self, boot: Boot) -> bool:
        began = self._now()
        if not await boot.look(round_=began >= self._rests_until):
            return False
        cadence, took = self._around.cadence, self._now() - began
        self._looked += took
        # What takes long waits for others inside vLLM: no reason to look at fewer than one each heartbeat.
        self._rests_until = began + min(took / cadence.looking, cadence.heartbeat)
        return True

    async def _catch_up(self, boot: Boot) -> None:
        """News that never end leave no time between them: then at the heartbeat, all of its share at once."""
        share = self._around.cadence.looking * self._around.cadence.heartbeat
        while self._looked < share:
            began = self._now()
            if not await boot.look():
                break
            self._looked += self._now() - began
        self._looked = 0.0

    async def _turn(self, boot: Boot) -> bool:
        """Act on the newest state; True when the boot may end for a fresh one."""
        state = self._around.following.known
        if state is None or self._announced is None:
            return False
        if self._must_announce(state, self._announced):
            self.doing = "announcing the engine"
            await self._announce(self._announced)
            self._told, self._seen_up = True, False
            boot.announced_again()
        self.doing = "loading and attesting adapters"
        await boot.reconcile(state)
        if self._seen_up:  # before, the fleet knows nothing of this engine, and so wants nothing of it
            self.settled = state.size
        if (renewal := boot.renewal) is None:
            self._patience.over()
            self.waits_for = ""
            return False
        return await self._may_go(boot, renewal, state)

    def _must_announce(self, state: State, announced: EngineState) -> bool:
        """Raises EngineTaken when a later boot has the engine's name, EngineMisannounced."""
        listed = state.engines.get(announced.engine)
        if not self._told:
            return True
        if listed is None or (listed.boot != announced.boot and not self._seen_up):
            return False  # what we said has not come back yet
        if listed.boot != announced.boot:
            raise EngineTaken("another agent runs this engine")
        if listed.model_copy(update={"up": True}) != announced:
            # Slots would stand for what is asked somewhere else. A fresh boot has a fresh name.
            raise EngineMisannounced("the registry lists this boot as something that it is not")
        if listed.up:
            self._seen_up = True
        return self._seen_up and not listed.up  # taken for dead, while the control plane did not hear us

    async def _may_go(self, boot: Boot, renewal: Renewal, state: State) -> bool:
        merges, target = self._around.merges, boot.target
        if target is not None and target != boot.weights.merged and not merges.ready(target):
            merges.start(target, state.bases[self._base])
            why_not = merges.why_not(target)
            self.waits_for = f"{target.short} cannot be merged: {why_not}" if why_not else "the merge"
            return False
        if not await boot.step_back(renewal, patient=self._patience.lasts(renewal, self._now())):
            self.waits_for = f"other engines, to serve what this one serves ({renewal.why})"
            if not renewal.hurries:
                self.waits_for += "; where there are none, people have to start it afresh"
            return False
        self.grows_to = renewal.rank
        self._tell("recycling", f"{renewal.why}: starting afresh")
        return True

    async def _progresses(self, client: VllmClient) -> bool:
        """Whether it made tokens since it was last asked: then it is not hung, and a probe waits (D13)."""
        before, self._made = self._made, await client.made()
        return before is not None and self._made is not None and self._made != before

    async def _heartbeat(self, boot: Boot, client: VllmClient) -> None:
        if boot.resident:
            await self._catch_up(boot)
            await boot.attest()
        elif not await client.health():
            raise EngineUnreachable("the engine's health check failed")

    async def _vacate(self, client: VllmClient) -> Ending:
        await self._drain(client, vacating(self._around.cadence))
        return Ending.RENEWED

    async def _drain(self, client: VllmClient, drain: Drain) -> None:
        """No new requests, and the ones under way finish."""
        self.doing = "draining"
        await self._farewell()
        began = self._now()
        done = await drained(client, drain)
        seconds = self._now() - began
        self._tell("drained", f"idle after {seconds:.1f} s" if done else f"given up after {seconds:.1f} s")

    async def _farewell(self) -> None:
        """Routers should hear it from us before their requests find out; but never wait long for it."""
        if self._announced is None or not self._told or self._told_down:
            return
        with contextlib.suppress(TenonError, TimeoutError):
            async with asyncio.timeout(self._around.cadence.goodbye):
                await self._announce(self._announced.model_copy(update={"up": False}))
                self._told_down = True

    async def _announce(self, state: EngineState) -> None:
        around = self._around
        await around.control.announce(state.engine, around.signer.sign(ANNOUNCEMENT, state.canonical()))

    async def _first_of(self, serving: Coroutine[Any, Any, Ending], child: EngineProcess) -> Ending:
        """How ``serving`` ends, or FAILED as soon as the child ends, or STOPPED as soon as that is asked."""
        work = asyncio.create_task(serving)
        end = asyncio.create_task(child.wait())
        stop = asyncio.create_task(self._around.stopping.wait())
        wrong = asyncio.create_task(self._violated())
        try:
            await asyncio.wait({work, end, stop, wrong}, return_when=asyncio.FIRST_COMPLETED)
            if wrong.done():
                violation = wrong.result()
                self._tell("violated", f"the guard found {violation.kind}: {violation.what}")
                child.kill()
                return Ending.FAILED
            if end.done():
                self._tell("failed", f"vLLM ended with status {end.result()}")
                return Ending.FAILED
            return work.result() if work.done() else Ending.STOPPED
        finally:
            for task in (work, end, stop, wrong):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, TenonError):
                    await task

    async def _violated(self) -> Violation:
        if self._spec.guard is None:
            await asyncio.Event().wait()
            raise AssertionError("nobody sets it")
        return await guarded.violated(self._spec.guard.parent)

    async def _unless_stopped(self, starting: Coroutine[Any, Any, Boot]) -> Boot | None:
        work = asyncio.create_task(starting)
        stop = asyncio.create_task(self._around.stopping.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else None
        finally:
            for task in (work, stop):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, TenonError):
                    await task

    def _tell(self, kind: Any, text: str) -> None:
        self._around.report(Event(kind, text))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def merged_spec(spec: EngineSpec, version: Digest, folder: Path) -> EngineSpec:
    return replace(spec, model=str(folder), revision=None, merged=version)
