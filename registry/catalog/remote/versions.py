"""Versions, from afar. A manifest's bytes are checked against the digest that was asked for."""

from dataclasses import dataclass

from registry.catalog.remote.errors import AnswerInvalid
from registry.catalog.remote.pages import items, listed
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import member, path, read
from registry.catalog.versions import VersionSummary
from registry.digests import Digest
from registry.errors import InvalidDocument, VersionNotFound
from registry.evidence import Report
from registry.fingerprint import Fingerprint
from registry.manifests import Manifest
from registry.models import AliasState, Slot
from registry.names import AdapterName, Ref
from registry.references import Reference
from registry.signing.envelope import Envelope


@dataclass(frozen=True, slots=True)
class VersionView:
    """What a registry says of a version beside its manifest and its evidence."""

    version: Digest
    state: str
    pushed_at: str
    aliases: tuple[str, ...]
    slots: tuple[Slot, ...]
    fingerprint: Digest | None = None


class Versions(Part):
    def adapters(
        self, tenant: str | None = None, *, after: AdapterName | None = None, limit: int | None = None
    ) -> tuple[AdapterName, ...]:
        """Adapters with at least one version: of ``tenant``, or of all that the key may see."""
        own = tenant or self.whoami().tenant
        at = self._of(own, "adapters") if own else path("adapters")
        found = []
        for item in items(self._wire, at, after=after, limit=limit):
            name = AdapterName.parse(read(str, member(item, "adapter")))
            if own not in (None, name.tenant):
                raise AnswerInvalid("the registry listed another tenant's adapter")
            found.append(name)
        return tuple(found)

    def versions(
        self, name: AdapterName, *, after: Digest | None = None, limit: int | None = None
    ) -> tuple[VersionSummary, ...]:
        """Oldest push first."""
        found = listed(self._wire, self._at(name, "versions"), VersionSummary, after=after, limit=limit)
        self._homes.versions.update({summary.version: name for summary in found})
        return found

    def version(self, version: Digest) -> VersionSummary:
        """Raises VersionNotFound."""
        return read(VersionSummary, self._wire.get(self._version(version)))

    def version_count(self, name: AdapterName) -> int:
        return read(int, member(self._wire.get(self._at(name)), "versions"))

    def resolve(self, ref: Ref) -> Digest:
        """Raises AliasNotFound, VersionNotFound."""
        if ref.version is not None:
            self._homes.versions[self.view(ref.name, ref.version).version] = ref.name
            return ref.version
        state = read(AliasState, self._wire.get(self._at(ref.name, "aliases", ref.alias or "")))
        self._homes.versions[state.version] = ref.name
        return state.version

    def view(self, name: AdapterName, version: Digest) -> VersionView:
        """Raises VersionNotFound."""
        answer = self._wire.get(self._at(name, "versions", version))
        found = read(VersionView, answer)
        if found.version != version:
            raise AnswerInvalid("the registry's version is not the one that was asked for")
        return found

    def manifest(self, version: Digest) -> Manifest:
        """Raises VersionNotFound, AnswerInvalid."""
        data = self._wire.call("GET", self._version(version, "manifest")).body
        if Digest.of(data) != version:
            raise AnswerInvalid(f"the manifest that the registry sent is not {version.short}")
        try:
            manifest = Manifest.parse(data)
        except InvalidDocument as error:
            raise AnswerInvalid(error.message) from None
        name = self._homes.versions[version]
        if (manifest.tenant, manifest.adapter) != (name.tenant, name.adapter):
            raise AnswerInvalid(f"{version.short} is of another adapter than {name}")
        return manifest

    def revoke(self, version: Digest, *, reason: str, actor: str) -> None:
        """Raises VersionNotFound."""
        self._wire.post(self._version(version, "revoke"), {"reason": reason})

    def reports(self, version: Digest) -> tuple[Report, ...]:
        """Oldest first. Raises VersionNotFound."""
        return tuple(_report(envelope) for envelope in self.report_envelopes(version))

    def report_envelopes(
        self, version: Digest, *, after: Digest | None = None, limit: int | None = None
    ) -> tuple[Envelope, ...]:
        """The same as they were signed; ``after``: the digest of one. Raises VersionNotFound."""
        return listed(self._wire, self._version(version, "reports"), Envelope, after=after, limit=limit)

    def file_report(self, envelope: Envelope, *, actor: str) -> Digest:
        """Raises SignatureInvalid, ReportInvalid, VersionNotFound, InvalidDocument."""
        report = Report.parse(envelope.body())  # whose it is stands nowhere else
        at = self._at(AdapterName(report.tenant, report.adapter), "versions", report.version, "reports")
        answer = self._wire.post(at, envelope.model_dump(mode="json"))
        digest = read(Digest, member(answer, "report"))
        if digest != Digest.of(envelope.body()):
            raise AnswerInvalid("the registry filed another report than it was given")
        return digest

    def file_reference(self, envelope: Envelope, fingerprint: Fingerprint, *, actor: str) -> Digest:
        """Raises SignatureInvalid, ReferenceInvalid, FingerprintInvalid, AlreadyExists, VersionNotFound,
        VersionRevoked, InvalidDocument."""
        said = Reference.parse(envelope.body())  # whose it is stands nowhere else
        at = self._at(AdapterName(said.tenant, said.adapter), "versions", said.version, "reference")
        body = {
            "envelope": envelope.model_dump(mode="json"),
            "fingerprint": fingerprint.model_dump(mode="json"),
        }
        if read(Digest, member(self._wire.post(at, body), "version")) != said.version:
            raise AnswerInvalid("the registry filed the reference of another version")
        return said.version

    def fingerprint_digest(self, version: Digest) -> Digest | None:
        """Raises VersionNotFound."""
        return self.view(self._name_of(version), version).fingerprint

    def sign_version(self, version: Digest, envelope: Envelope, *, actor: str) -> None:
        """Raises SignatureInvalid, VersionNotFound."""
        self._wire.post(self._version(version, "signatures"), envelope.model_dump(mode="json"))

    def signatures(self, version: Digest) -> tuple[Envelope, ...]:
        """Raises VersionNotFound."""
        name = self._name_of(version)
        answer = self._wire.get(self._at(name, "versions", version))
        return read(tuple[Envelope, ...], member(answer, "signatures"))

    def _version(self, version: Digest, *more: str) -> str:
        return self._at(self._name_of(version), "versions", version, *more)

    def _name_of(self, version: Digest) -> AdapterName:
        try:
            return self._homes.versions[version]
        except KeyError:
            raise VersionNotFound(
                f"whose is {version.short}?", hint="ask by ref first: tenant/adapter@sha256:…"
            ) from None


def _report(envelope: Envelope) -> Report:
    try:
        return Report.parse(envelope.body())
    except InvalidDocument as error:
        raise AnswerInvalid(error.message) from None
