"""One life of one vLLM: which versions it was given, and what was seen of them."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from registry.clock import Clock
from registry.digests import Digest
from registry.errors import TenonError
from registry.feed import State
from registry.judgement import Finding
from registry.models import Withdrawal
from registry.names import engine_name
from registry.signing.keys import Signer
from registry.signing.types import WITHDRAWAL
from server.engines.absent import Absent
from server.engines.attest import Recognised, Witness, judge_together, observe
from server.engines.base_proof import BaseProof
from server.engines.cache import AdapterCache
from server.engines.client import VllmClient
from server.engines.errors import (
    AttestationFailed,
    BaseUnproven,
    ContractMismatch,
    EngineAnswerUnusable,
    EngineLoadFailed,
    EngineUnreachable,
    refusal,
)
from server.engines.faults import Faults
from server.engines.findings import Findings
from server.engines.looks import Looks
from server.engines.packages import NotServable, Package
from server.engines.ports import ControlPlane
from server.engines.residency import Capacity, Held, Plan, Renewal, outlook, plan
from server.engines.spec import SERVED_NAME
from server.engines.state import Event, Report, Why
from server.engines.supply import Delivery, Supply


@dataclass(frozen=True, slots=True)
class Weights:
    """What vLLM was started with, besides the base."""

    merged: Digest | None = None
    """The version that is part of its weights."""
    null: str | None = None
    """Name of the loaded null adapter."""


class Boot:
    """Not shared between tasks: the agent calls one method at a time."""

    def __init__(
        self,
        *,
        witness: Witness,
        capacity: Capacity,
        engine: VllmClient,
        control: ControlPlane,
        signer: Signer,
        cache: AdapterCache,
        clock: Clock,
        new_salt: Callable[[], str],
        republish: float,
        report: Report,
        faults: Faults,
        absent: Absent,
        weights: Weights | None = None,
        prove: Callable[[int], None] = lambda loads: None,
    ) -> None:
        """``republish``: seconds after which an unchanged finding is signed and logged again. ``prove``:
        raises EngineUnguarded unless the guard has seen so many loads of versions."""
        self.witness = witness
        self._weights = weights or Weights()
        merged = self._weights.merged
        self._capacity = capacity
        self._engine = engine
        self._control = control
        self._cache = cache
        self._clock = clock
        self._new_salt = new_salt
        self._report = report
        self._signer = signer
        self._faults = faults
        self._absent = absent
        self._prove = prove
        self._findings = Findings(
            witness=witness, control=control, signer=signer, clock=clock, republish=republish, report=report
        )
        self._supply = Supply(
            control=control,
            cache=cache,
            engine=engine,
            base=witness.base,
            model=SERVED_NAME if merged is None else engine_name(merged),
        )
        self._base: BaseProof | None = None
        """A merged engine has no bare base to ask."""
        if merged is None:
            asked = self._weights.null or SERVED_NAME
            self._base = BaseProof(
                engine=engine, model=asked, base=witness.base, dtype=witness.dtype, new_salt=new_salt
            )
        self._asked: set[Digest] = set()
        self._doubtful: Digest | None = None
        """The version after which vLLM gave no usable answer yet."""
        self._resident: dict[Digest, Package] = {}
        self._looks = Looks()
        self._revoked: set[Digest] = set()
        self._elsewhere: frozenset[Digest] = frozenset()
        self._tenants: Mapping[Digest, str] = {}
        self._target = merged
        self._plan: Plan | None = None

    async def reconcile(self, state: State) -> Plan:
        """Load what is missing, look at what is new, and let the registry know. Returns the plan with nothing
        left to load; :meth:`look` then sees to the others.

        Raises EngineUnreachable, EngineUnguarded, BaseUnproven. What the control plane could not deliver is
        held and tried again when that is :attr:`due`.
        """
        self._faults.turn(state)
        while True:
            self._plan = found = self._planned(state)
            fresh = [version for version in found.serve if self._is_news(version)]
            if fresh:  # back from retirement, or loaded and not looked at
                await self._examine(fresh)
            if not found.load:
                break
            for version in self._next_loads(found):
                await self._bring(state, version)
        await self._withdraw(found)
        return found

    async def look(self, *, round_: bool = True) -> bool:
        """See to one version that was not looked at since the last load, or yet in this ``round_`` of all if
        that may go on; False when there is none."""
        if (version := self._next_look(round_=round_)) is None:
            return False
        await self._examine([version])
        return True

    @property
    def looking(self) -> bool:
        """Whether a round is not over."""
        return self._next_look(round_=True) is not None

    @property
    def owing(self) -> bool:
        """Whether something was loaded since all that are in service were looked at."""
        return self._looks.owing(self._plan.serve if self._plan else ())

    async def attest(self) -> None:
        """Whether the base and the files are still what they were. If the last round of looks (:meth:`look`)
        is over, the next one begins.

        Raises EngineUnreachable at the first probe that stays without any answer, BaseUnproven, CacheDamaged.
        """
        await self._cache.still(self._resident)
        if self._base is not None:
            await self._base.again()
        self._looks.beat(self._serving())
        if self._base is None:  # with merged weights there is none to ask, and this tells a hung engine
            await self._examine(self._serving())

    def announced_again(self) -> None:
        """The registry had taken this boot for dead: all that it knew of it has to be said again."""
        self._findings.unlisted()

    async def flush(self) -> None:
        """Hand over what the control plane has not yet got."""
        await self._findings.flush()

    async def step_back(self, renewal: Renewal, *, patient: bool) -> bool:
        """Whether this boot may end now: what others serve too is withdrawn, all at once and only if they
        really do. ``patient``: as long as something is missing elsewhere, it may not."""
        if renewal.needed and (patient or not renewal.hurries):
            return False
        if not await self._end_slots(self._findings.listed() & self._elsewhere):
            return False
        with contextlib.suppress(EngineUnreachable):
            if self._faults.under_way and await self._answers():
                self._faults.all_survived()
        self._faults.spent()
        return True

    @property
    def unsent(self) -> bool:
        return self._findings.unsent

    @property
    def due(self) -> float | None:
        """When the next try of something that could not be fetched, loaded or looked at is due, of the loop's
        clock."""
        return min((pause.until for pause in self._faults.held.values()), default=None)

    @property
    def attest_age(self) -> float:
        """Seconds since the last look at whoever in service waited longest for one; 0 when nobody is."""
        oldest = self._looks.oldest(self.ready())
        return 0.0 if oldest is None else _now() - oldest

    @property
    def renewal(self) -> Renewal | None:
        return self._plan.renewal if self._plan else None

    @property
    def target(self) -> Digest | None:
        """The version that the fleet wants in this engine's weights."""
        return self._target

    @property
    def weights(self) -> Weights:
        return self._weights

    def ready(self) -> dict[Digest, Finding]:
        """In service: wanted, attested, and the registry knows."""
        serve = self._plan.serve if self._plan else ()
        passed = self._findings.passed
        return {version: passed[version] for version in serve if self._findings.known(version)}

    def not_ready(self) -> dict[Digest, Why]:
        """Every other wanted version, with the reason. One that was not recognised, or that vLLM fails to
        load or to answer for, holds nobody up who is in service: whoever pushed it would keep an engine that
        all share from ever being ready. Where none is, it is the engine that may be wrong, until a fresh
        boot has not helped."""
        if self._plan is None:
            return {}
        ready, faults = self.ready(), self._faults
        excused = faults.versions if ready else self._hopeless()
        blocking = (faults.held.keys() | faults.failed.keys()) - excused
        reasons = {
            version: Why(text, blocks=version in blocking) for version, text in self._plan.unplaced.items()
        }
        for version in self._plan.serve:
            if version not in ready:
                seen = version in self._findings.passed
                waiting = "attested, and the registry does not know yet" if seen else "not attested yet"
                if (pause := faults.held.get(version)) is not None:
                    waiting = pause.why
                reasons[version] = Why(faults.failed.get(version, waiting), blocks=version not in excused)
        return reasons

    def retired(self) -> tuple[Digest, ...]:
        return tuple(
            version for version in (self._plan.retired if self._plan else ()) if self._serves(version)
        )

    @property
    def resident(self) -> Mapping[Digest, Package]:
        return self._resident

    def _planned(self, state: State) -> Plan:
        for version in self._resident:
            known = state.versions.get(version)
            if known is not None and known.revoked and version not in self._revoked:
                self._revoked.add(version)
                self._findings.ended(version)  # with its slots, everywhere
        self._faults.bar(serving=bool(self._findings.passed))
        slots = state.slots.get(self.witness.engine, {}).items()
        listed = {version for version, slot in slots if slot.boot == self.witness.boot}
        self._findings.heard(listed, state.size)
        view = outlook(
            state,
            self.witness.engine,
            self._clock.now(),
            met=self._asked | self._faults.versions,
            gone=self._absent.among(state),
        )
        self._elsewhere, self._target, self._tenants = view.elsewhere, view.share.merged, view.tenants
        wanted = {each.version for each in view.share.versions}
        self._faults.weigh(view.elsewhere)
        self._cache.wants(wanted if self._target is None else wanted | {self._target})
        held = Held(
            loaded=self._asked,
            slots=self._findings.listed(),
            unfit=self._faults.unfit,
            merged=self._weights.merged,
            again=self._faults.unloaded,
            stuck=self._faults.stuck,
            spoilt=self._faults.spoilt,
        )
        return plan(view, held, self._capacity)

    def _hopeless(self) -> frozenset[Digest]:
        """If one tenant has all that are wanted, and no other engine serves them: else it is the engine that
        cannot load anything."""
        wanted = {*self._plan.serve, *self._plan.unplaced} if self._plan else set()
        versions = self._faults.hopeless & wanted
        if versions & self._elsewhere:
            return frozenset()
        one = len({self._tenants.get(version) for version in versions}) == 1
        return versions if one else frozenset()

    def _next_loads(self, found: Plan) -> tuple[Digest, ...]:
        """While others are in service, one at a time: each is followed by a look. Suspects after all others,
        and never two before the next look."""
        sound = tuple(version for version in found.load if not self._faults.is_suspect(version))
        return sound if sound and not self._findings.passed else (sound or found.load)[:1]

    def _next_look(self, *, round_: bool) -> Digest | None:
        def able(version: Digest) -> bool:
            return self._serves(version) and version not in self._faults.held

        return self._looks.next(self._plan.serve if self._plan else (), able, round_=round_)

    def _is_news(self, version: Digest) -> bool:
        """In service from now on, and the registry does not list it or it was not looked at for a load."""
        return self._serves(version) and version not in self._findings.passed

    async def _examine(self, versions: list[Digest]) -> None:
        """Probe, judge against everybody who was recognised, and publish what is new."""
        began = _now()
        observations = [
            await observe(
                self._engine,
                version=version,
                fingerprint=self._resident[version].fingerprint,
                files=self._resident[version].manifest.files,
                salt=self._new_salt(),
            )
            for version in versions
        ]
        rivals = [
            Recognised(version, package.fingerprint, package.manifest.files)
            for version, package in self._resident.items()
            if version in self._findings.passed and version not in versions
        ]
        judged = judge_together(observations, dtype=self.witness.dtype, recognised=rivals)
        passing = {seen.version for seen in observations if seen.passing}
        for version, finding in judged.items():
            self._looks.seen(version, began)
            if version not in passing:
                self._faults.survived(version)
            if finding.passed:
                self._faults.recognised(version)
            else:
                self._not_seen(version, f"{AttestationFailed.code}: {finding.reason}", version in passing)
            self._findings.add(self._resident[version], finding)
        await self._findings.flush()

    def _not_seen(self, version: Digest, reason: str, passing: bool) -> None:
        """Its slot ends in any case. Where vLLM only failed to answer it is asked again; what answered as
        something else is never trusted again."""
        if passing:
            self._doubtful = version  # vLLM says 500 as it dies, too
            self._findings.forget(version)
            self._faults.not_shown(version, reason)
        else:
            self._fail(version, reason)

    async def _bring(self, state: State, version: Digest) -> None:
        """Fetch, check and load one version. Marks it when it cannot be."""
        if self._doubtful is not None:
            if not await self._answers():
                # Or it would be suspected of what the other one did.
                self._faults.not_shown(version, "vLLM gives no usable answer since it failed for another one")
                return
            self._faults.survived(self._doubtful)
            self._doubtful = None
        self._faults.begins(version)
        if (delivery := await self._delivered(state, version)) is None:
            if self._doubtful is None:
                self._faults.survived(version)
            return
        package = delivery.package
        self._cache.pin(version, package.manifest)
        self._asked.add(version)
        if self._weights.merged == version:
            self._resident[version] = package
            self._looks.owe(self._resident)
            return
        self._report(Event("loading", version.short, version))
        try:
            await self._engine.load(engine_name(version), delivery.folder)
        except EngineLoadFailed as error:
            self._cache.unpin(version)
            self._faults.not_loaded(version, error)
            if error.passing:
                self._doubtful = version
            else:
                self._faults.survived(version)
            # It may come again each minute: the others are looked at for it in their rounds' share of time.
            self._looks.beat(self._serving())
        except EngineUnreachable:
            # vLLM may hold it or not: the name is spent, and nothing of it is ever served.
            self._doubtful = version
            self._fail(version, "the engine did not answer when it should load it")
            raise
        else:
            self._faults.loaded(version)
            self._resident[version] = package
            self._looks.owe(self._resident)
            self._prove(len(self._resident))

    async def _delivered(self, state: State, version: Digest) -> Delivery | None:
        """None when it is marked."""
        known = state.versions[version]
        try:
            delivery = await self._supply.bring(known, base=state.bases[self.witness.base])
            self._faults.fetched(version)
            wrong = await self._base_fault(delivery.package)
        except NotServable as error:
            self._faults.refuse(version, str(error))
        except ContractMismatch as error:
            self._fail(version, f"{error.code}: {error.message}")
        except EngineAnswerUnusable as error:
            self._not_seen(version, error.message, error.passing)
        except EngineUnreachable:
            self._doubtful = version
            raise
        except BaseUnproven:
            raise
        except TenonError as error:
            self._faults.not_fetched(version, error)
        else:
            if wrong is None:
                return delivery
            self._fail(version, f"the base does not answer as the version's reference of it: {wrong}")
        return None

    async def _answers(self) -> bool:
        """Whether vLLM gives a usable answer for the base. Raises EngineUnreachable."""
        merged = self._weights.merged
        name = (self._weights.null or SERVED_NAME) if merged is None else engine_name(merged)
        try:
            await self._engine.probe(model=name, prompts=[[1, 2, 3]], cache_salt=self._new_salt())
        except EngineAnswerUnusable:
            return False
        return True

    async def _base_fault(self, package: Package) -> str | None:
        if self._base is None:
            return None
        return await self._base.fault(package.fingerprint_digest, package.fingerprint)

    async def _withdraw(self, found: Plan) -> None:
        if found.withdraw and await self._end_slots(frozenset(found.withdraw)):
            for version in found.withdraw:
                self._report(Event("withdrawn", f"{version.short}: others serve it", version))

    async def _end_slots(self, versions: frozenset[Digest]) -> bool:
        if not versions:
            return True
        witness = self.witness
        said = Withdrawal(engine=witness.engine, boot=witness.boot, versions=tuple(sorted(versions)))
        try:
            await self._control.withdraw(said.engine, self._signer.sign(WITHDRAWAL, said.canonical()))
        except TenonError as error:
            if refusal(error) != "engine_needed":
                raise
            return False  # another engine was quicker to leave: the next news says more
        for version in versions:
            self._findings.ended(version)
        return True

    def _serving(self) -> list[Digest]:
        return [version for version in self._resident if self._serves(version)]

    def _serves(self, version: Digest) -> bool:
        ended = version in self._faults.failed or version in self._revoked
        return version in self._resident and not ended

    def _fail(self, version: Digest, reason: str) -> None:
        self._findings.forget(version)
        self._faults.fail(version, reason)


def _now() -> float:
    return asyncio.get_running_loop().time()
