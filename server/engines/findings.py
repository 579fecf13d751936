"""What was seen of the versions on one boot, and how much of it the registry knows."""

import asyncio
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Final

from registry.catalog.errors import EngineDown
from registry.clock import Clock
from registry.digests import Digest
from registry.errors import TenonError
from registry.judgement import Finding
from registry.signing.envelope import Envelope
from registry.signing.keys import Signer
from registry.signing.types import ATTESTATION
from server.engines.attest import Witness, attestation_of
from server.engines.errors import refusal
from server.engines.packages import Package
from server.engines.ports import ControlPlane
from server.engines.state import Event, Report
from server.errors import ControlUnreachable

_PAUSE: Final = (1.0, 60.0)
"""Seconds, first and longest, until what was refused is handed over again; doubles in between."""


@dataclass(frozen=True, slots=True)
class Published:
    finding: Finding
    at: float
    """Seconds of the agent's clock."""


@dataclass(frozen=True, slots=True)
class _Pause:
    seconds: float
    until: float
    """Of the loop's clock, which nobody sets back."""


class Findings:
    """Signs what is news and hands it over, failures first: they end a slot."""

    def __init__(
        self,
        *,
        witness: Witness,
        control: ControlPlane,
        signer: Signer,
        clock: Clock,
        republish: float,
        report: Report,
    ) -> None:
        """``republish``: seconds after which an unchanged finding is signed and logged again."""
        self._witness = witness
        self._control = control
        self._signer = signer
        self._clock = clock
        self._republish = republish
        self._report = report
        self._passed: dict[Digest, Finding] = {}
        self._published: dict[Digest, Published] = {}
        self._outbox: dict[Digest, tuple[Envelope, Finding]] = {}
        self._stored: dict[Digest, int] = {}
        """The log's size when it had taken what was published last."""
        self._pauses: dict[Digest, _Pause] = {}
        """Of what was refused, or taken and not listed: asking at once again changes nothing."""

    @property
    def passed(self) -> Mapping[Digest, Finding]:
        """Versions whose last look showed them."""
        return self._passed

    @property
    def unsent(self) -> bool:
        """What could be handed over now; what was refused waits for its time."""
        return any(self._may(version) for version in self._outbox)

    def known(self, version: Digest) -> bool:
        """Whether the registry lists the version as attested on this boot."""
        last = self._published.get(version)
        return version in self._passed and last is not None and last.finding.passed

    def listed(self) -> frozenset[Digest]:
        return frozenset(version for version in self._published if self.known(version))

    def add(self, package: Package, finding: Finding) -> None:
        """Sign it when it is news: the first finding, another verdict, or the last one getting old."""
        version = package.version
        if finding.passed:
            if version not in self._passed:
                self._report(Event("attested", f"{version.short}: {finding.reason}", version))
            self._passed[version] = finding
        else:
            self._pauses.pop(version, None)  # it ends a slot
        last = self._published.get(version)
        same = last is not None and last.finding.passed == finding.passed
        if same and last is not None and abs(self._now() - last.at) < self._republish:
            return  # abs: a clock that is set back must not silence the proof for hours
        document = attestation_of(
            finding,
            witness=self._witness,
            version=version,
            fingerprint=package.fingerprint_digest,
            contract=package.contract_digest,
            observed_at=self._clock.now(),
        )
        self._outbox[version] = (self._signer.sign(ATTESTATION, document.canonical()), finding)

    def forget(self, version: Digest) -> None:
        """The last look no longer counts; the next one is news, whatever it shows."""
        self._passed.pop(version, None)

    def heard(self, slots: Set[Digest], size: int) -> None:
        """What the registry lists in a state of this ``size``. A slot that it does not list though it had
        taken the attestation was ended there (its tenant wants the version elsewhere, the engine was
        announced again); one from after that state is on its way."""
        for version in self.listed() - slots:
            if self._stored[version] <= size:
                self.ended(version)
                self._put_off(version, first=0.0)
        for version in slots - self._outbox.keys():
            self._pauses.pop(version, None)

    def ended(self, version: Digest) -> None:
        """The registry no longer lists the version here."""
        self._published.pop(version, None)
        self._stored.pop(version, None)
        self._outbox.pop(version, None)
        self._passed.pop(version, None)

    def unlisted(self) -> None:
        """The registry lists nothing of this boot any more: every finding is news again."""
        self._published.clear()
        self._stored.clear()
        self._pauses.clear()
        # One that failed is not looked at again in this boot: what was not handed over is said nowhere else.
        self._outbox = {version: said for version, said in self._outbox.items() if not said[1].passed}
        self._passed.clear()

    async def flush(self) -> None:
        """Hand over what the control plane has not got yet; what it does not take now is tried again."""
        for version in sorted(self._outbox, key=lambda version: self._outbox[version][1].passed):
            envelope, finding = self._outbox[version]
            if not self._may(version):
                continue
            try:
                size = await self._control.attest(envelope)
            except TenonError as error:
                self._report(Event("waiting", f"attestation not stored: {error.message}", version))
                if refusal(error) in ("engine_replaced", EngineDown.code):
                    raise  # the whole boot is meant, and whoever runs it has to do something about it
                if isinstance(error, ControlUnreachable):
                    return
                self._put_off(version, first=_PAUSE[0])  # that one is refused, the others are not
                continue
            del self._outbox[version]
            self._published[version] = Published(finding, self._now())
            self._stored[version] = size

    def _may(self, version: Digest) -> bool:
        pause = self._pauses.get(version)
        return pause is None or asyncio.get_running_loop().time() >= pause.until

    def _put_off(self, version: Digest, *, first: float) -> None:
        known = self._pauses.get(version)
        seconds = first if known is None else min(max(2 * known.seconds, _PAUSE[0]), _PAUSE[1])
        self._pauses[version] = _Pause(seconds, asyncio.get_running_loop().time() + seconds)

    def _now(self) -> float:
        return self._clock.now().timestamp()
