"""One life of one vLLM: which versions it was given, and what was seen of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from registry.clock import Clock
from registry.digests import Digest
from registry.errors import TenonError
from registry.feed import State
from registry.judgement import Finding
from registry.names import engine_name
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from registry.signing.types import ATTESTATION
from server.engines.attest import Witness, attestation_of, check_contract, judge_together, observe
from server.engines.cache import AdapterCache
from server.engines.client import VllmClient
from server.engines.errors import AttestationFailed, ContractMismatch, EngineLoadFailed, EngineUnreachable
from server.engines.packages import NotServable, Package, fetch_package
from server.engines.ports import ControlPlane
from server.engines.residency import Capacity, Plan, plan, wanted
from server.engines.spec import SERVED_NAME
from server.engines.state import Event, Report, Why


@dataclass(frozen=True, slots=True)
class Published:
    finding: Finding
    at: float
    """Seconds of the agent's clock."""


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
    ) -> None:
        """``republish``: seconds after which an unchanged finding is signed and logged again."""
        self.witness = witness
        self._capacity = capacity
        self._engine = engine
        self._control = control
        self._signer = signer
        self._cache = cache
        self._clock = clock
        self._new_salt = new_salt
        self._republish = republish
        self._report = report
        self._asked: set[Digest] = set()
        self._resident: dict[Digest, Package] = {}
        self._contracts: dict[Digest, str | None] = {}
        """Contract digest -> what is wrong with it on this engine; None when it holds."""
        self._findings: dict[Digest, Finding] = {}
        self._unfit: dict[Digest, str] = {}
        """For good: no fingerprint, refused by vLLM …"""
        self._failed: dict[Digest, str] = {}
        """For the rest of this boot: a slot that once behaved wrongly is never trusted again."""
        self._held: dict[Digest, str] = {}
        """For now: could not be fetched."""
        self._published: dict[Digest, Published] = {}
        self._outbox: dict[Digest, tuple[Envelope, Finding]] = {}
        self._plan: Plan | None = None

    async def reconcile(self, state: State) -> Plan:
        """Load what is missing and attest after each step. Returns the plan with nothing left to load.

        Raises EngineUnreachable. What the control plane could not deliver is held and tried again next time.
        """
        self._held.clear()
        targets = wanted(state, self.witness.base, self._clock.now())
        while True:
            unfit = self._unfit | self._failed | self._held
            self._plan = plan(targets, loaded=self._asked, unfit=unfit, capacity=self._capacity)
            if not self._plan.load:
                return self._plan
            # While others are in service, one load at a time: each is followed by a look at everybody.
            batch = self._plan.load[:1] if self._findings else self._plan.load
            loads = [await self._bring(version) for version in batch]
            if any(loads):
                await self.attest()

    async def attest(self) -> None:
        """Probe everything that is loaded, in service or not, and publish what is new.

        Raises EngineUnreachable at the first probe that stays without any answer.
        """
        trusted = {version: self._resident[version] for version in self._resident if self._serves(version)}
        observations = [
            await observe(
                self._engine,
                version=version,
                fingerprint=package.fingerprint,
                files=package.manifest.files,
                salt=self._new_salt(),
            )
            for version, package in trusted.items()
        ]
        for version, finding in judge_together(observations, dtype=self.witness.dtype).items():
            if not finding.passed:
                self._fail(version, f"{AttestationFailed.code}: {finding.reason}")
            elif version not in self._findings:
                self._report(Event("attested", f"{version.short}: {finding.reason}", version))
            if finding.passed:
                self._findings[version] = finding
            self._enqueue(trusted[version], finding)
        await self.flush()

    async def flush(self) -> None:
        """Hand over what the control plane has not yet got, failures first: they end a slot."""
        for version in sorted(self._outbox, key=lambda version: self._outbox[version][1].passed):
            envelope, finding = self._outbox[version]
            try:
                await self._control.attest(envelope)
            except TenonError as error:
                self._report(Event("waiting", f"attestation not stored: {error.message}", version))
                return
            del self._outbox[version]
            self._published[version] = Published(finding, self._now())

    @property
    def unsent(self) -> bool:
        return bool(self._outbox)

    @property
    def held(self) -> bool:
        """Whether something could not be fetched and is worth another try."""
        return bool(self._held)

    @property
    def recycle(self) -> bool:
        return self._plan is not None and self._plan.recycle

    def ready(self) -> dict[Digest, Finding]:
        """In service: wanted, attested, and the registry knows."""
        serve = self._plan.serve if self._plan else ()
        return {
            version: self._findings[version]
            for version in serve
            if version in self._findings and version in self._published and version not in self._outbox
        }

    def not_ready(self) -> dict[Digest, Why]:
        """Every other wanted version, with the reason."""
        if self._plan is None:
            return {}
        reasons = {
            version: Why(text, blocks=version in self._failed or version in self._held)
            for version, text in self._plan.unplaced.items()
        }
        ready = self.ready()
        for version in self._plan.serve:
            if version not in ready:
                waiting = "attested, and the registry does not know yet"
                text = self._failed.get(version, waiting if version in self._findings else "not attested yet")
                reasons[version] = Why(text, blocks=True)
        return reasons

    def retired(self) -> tuple[Digest, ...]:
        return tuple(
            version for version in (self._plan.withdraw if self._plan else ()) if self._serves(version)
        )

    @property
    def resident(self) -> Mapping[Digest, Package]:
        return self._resident

    async def _bring(self, version: Digest) -> bool:
        """Fetch, check and load one version; True when vLLM was asked to load. Marks it when it cannot be."""
        try:
            package = await fetch_package(self._control, version, base=self.witness.base)
            if (wrong := await self._contract_fault(package)) is not None:
                self._fail(version, wrong)
                return False
            folder = await self._cache.ensure(version, package.manifest, self._control.blob)
        except NotServable as error:
            self._refuse(version, str(error))
            return False
        except EngineUnreachable:
            raise
        except TenonError as error:
            self._held[version] = error.message
            self._report(Event("waiting", f"{version.short}: {error.message}", version))
            return False
        self._report(Event("loading", version.short, version))
        self._cache.pin(version)
        self._asked.add(version)
        try:
            await self._engine.load(engine_name(version), folder)
        except EngineLoadFailed as error:
            self._refuse(version, error.message)
        except EngineUnreachable:
            # vLLM may hold it or not: the name is spent, and nothing of it is ever served.
            self._fail(version, "the engine did not answer when it should load it")
            raise
        else:
            self._resident[version] = package
        return True

    async def _contract_fault(self, package: Package) -> str | None:
        digest = package.contract_digest
        if digest not in self._contracts:
            try:
                await check_contract(
                    self._engine, package.contract, base=self.witness.base, model=SERVED_NAME
                )
            except ContractMismatch as error:
                self._contracts[digest] = f"{error.code}: {error.message}"
            else:
                self._contracts[digest] = None
        return self._contracts[digest]

    def _serves(self, version: Digest) -> bool:
        return version in self._resident and version not in self._failed

    def _enqueue(self, package: Package, finding: Finding) -> None:
        """Sign when it is news: the first finding, another verdict, or the last one getting old."""
        last = self._published.get(package.version)
        known = last is not None and last.finding.passed == finding.passed
        if last is not None and known and self._now() - last.at < self._republish:
            return
        document = attestation_of(
            finding,
            witness=self.witness,
            version=package.version,
            fingerprint=package.fingerprint_digest,
            contract=package.contract_digest,
            observed_at=self._clock.now(),
        )
        self._outbox[package.version] = (self._signer.sign(ATTESTATION, document.canonical()), finding)

    def _fail(self, version: Digest, reason: str) -> None:
        self._failed[version] = reason
        self._findings.pop(version, None)
        self._report(Event("failed", f"{version.short}: {reason}", version))

    def _refuse(self, version: Digest, reason: str) -> None:
        self._unfit[version] = reason
        self._report(Event("refused", f"{version.short}: {reason}", version))

    def _now(self) -> float:
        return self._clock.now().timestamp()
