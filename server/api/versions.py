"""Immutable versions of adapters: published, signed, revoked."""

from base64 import b64decode
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field

from registry.canonical import Document
from registry.catalog.versions import State, VersionSummary
from registry.digests import Digest
from registry.errors import InvalidInput, VersionNotFound
from registry.evidence import Report
from registry.fingerprint import Fingerprint
from registry.manifests import Manifest, Provenance
from registry.models import Slot
from registry.names import AdapterName
from registry.signing.envelope import Envelope
from server.api import blobs
from server.api.access import PEOPLE, TRAINERS, requires, requires_of_tenant
from server.api.adapters import named
from server.api.bodies import takes
from server.api.caller import Caller, Who
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import DIGEST, Page, Place, paged

JSON = "application/json"
AT = "/tenants/{tenant}/adapters/{adapter}/versions"
_DIGEST = f"sha256:{'0' * 64}"
_VERSION = {
    "base": _DIGEST,
    "files": {"adapter_config.json": _DIGEST, "adapter_model.safetensors": _DIGEST},
    "fingerprint": None,
    "provenance": {"method": "upload"},
}
_LARGEST = 8 << 20
"""Bytes of a publication: a fingerprint holds log-probabilities of some dozen probes, and clients send files
with it up to 4 MiB together, which base64 makes 5.4."""


class NewVersion(Document):
    """Files that were uploaded before, or come with this request, as one version."""

    base: Digest
    files: dict[str, Digest] = Field(min_length=1, max_length=16)
    """File name -> its bytes: ``adapter_config.json`` and ``adapter_model.safetensors``."""
    contents: dict[str, str] = Field(default_factory=dict, max_length=16)
    """File name -> its bytes in base64, of files that were not uploaded: one request for a small adapter."""
    fingerprint: Fingerprint | None = None
    provenance: Provenance


class PublishedVersion(Document):
    version: Digest
    manifest: Manifest
    """Whose canonical JSON has that digest: what was understood, to be compared with what was meant."""


class VersionView(Document):
    """A version with all that is known of it."""

    version: Digest
    state: State
    pushed_at: str
    aliases: tuple[str, ...]
    manifest: Manifest
    reports: tuple[Report, ...]
    signatures: tuple[Envelope, ...]
    slots: tuple[Slot, ...]
    """Where it was seen to be served."""
    fingerprint: Digest | None = None
    """Pushed with the version or filed later; null: no engine could prove that it serves it."""


class Revocation(Document):
    reason: str = Field(min_length=1, max_length=500)


def owned(control: Control, name: AdapterName, version: str) -> Digest:
    """A path parameter; another adapter's version is as unknown as one that does not exist."""
    digest = Digest(version)
    try:
        manifest = control.within(name.tenant).manifest(digest)
        found = (manifest.tenant, manifest.adapter) == (name.tenant, name.adapter)
    except VersionNotFound:
        found = False
    if not found:  # in the same words, whether it is nobody's or another's
        raise VersionNotFound(f"{name} has no version {digest}")
    return digest


def _decoded(wanted: NewVersion) -> dict[str, bytes]:
    """Raises InvalidInput."""
    if strange := sorted(wanted.contents.keys() - wanted.files.keys()):
        raise InvalidInput(f"contents names {ascii(strange[0])[:80]}, and files does not")
    try:
        return {path: b64decode(text, validate=True) for path, text in wanted.contents.items()}
    except ValueError:
        raise InvalidInput("contents must be base64 (RFC 4648, section 4, with padding)") from None


def routes(control: Control) -> APIRouter:
    versions = router()
    trainers = requires_of_tenant(control, TRAINERS)
    people = requires_of_tenant(control, PEOPLE)

    @versions.get(
        "/versions/{version}/manifest",
        dependencies=[requires(control, {Who.SERVICE})],
        responses={200: {"model": Manifest}},
    )
    def read_any_manifest(version: str) -> Response:
        """For engines: the canonical bytes, whose digest is the version."""
        return Response(control.catalog.manifest(Digest(version)).canonical(), media_type=JSON)

    @versions.get(AT, dependencies=[trainers])
    def list_versions(
        tenant: str, adapter: str, place: Annotated[Place, paged(control, behind=DIGEST)]
    ) -> Page[VersionSummary]:
        """All versions of an adapter, oldest push first."""
        name = named(tenant, adapter)
        after = Digest(place.after) if place.after else None
        found = control.within(tenant).versions(name, after=after, limit=place.ask)
        return place.page(found, lambda each: each.version)

    @versions.post(AT, status_code=201)
    def publish_version(
        tenant: str,
        adapter: str,
        caller: Annotated[Caller, trainers],
        wanted: Annotated[NewVersion, takes(NewVersion, limit=_LARGEST, example=_VERSION)],
        response: Response,
    ) -> PublishedVersion:
        """A version of uploaded files, which are inspected first. The same version again changes nothing.

        Nothing is served yet: that takes a promotion, which a trainer's key may not do.
        """
        name = named(tenant, adapter)
        contents = _decoded(wanted)
        blobs.require(
            control, tenant, [digest for path, digest in wanted.files.items() if path not in contents]
        )
        catalog = control.within(tenant)
        version = catalog.publish(
            name,
            wanted.files,
            base=wanted.base,
            fingerprint=wanted.fingerprint,
            provenance=wanted.provenance,
            actor=caller.actor,
            contents=contents,
        )
        response.headers["Location"] = (
            f"/api/v1/tenants/{name.tenant}/adapters/{name.adapter}/versions/{version}"
        )
        return PublishedVersion(version=version, manifest=catalog.manifest(version))

    @versions.get(f"{AT}/{{version}}", dependencies=[trainers])
    def read_version(tenant: str, adapter: str, version: str) -> VersionView:
        """One version: its lineage, the evidence about it, and where it is served."""
        catalog = control.within(tenant)
        name = named(tenant, adapter)
        digest = owned(control, name, version)
        summary = catalog.version(digest)
        return VersionView(
            version=digest,
            state=summary.state,
            pushed_at=summary.pushed_at,
            aliases=summary.aliases,
            manifest=catalog.manifest(digest),
            reports=catalog.reports(digest),
            signatures=catalog.signatures(digest),
            slots=control.catalog.slots(digest),
            fingerprint=catalog.fingerprint_digest(digest),
        )

    @versions.get(f"{AT}/{{version}}/manifest", dependencies=[trainers], responses={200: {"model": Manifest}})
    def read_manifest(tenant: str, adapter: str, version: str) -> Response:
        """The canonical bytes, whose SHA-256 is the version."""
        digest = owned(control, named(tenant, adapter), version)
        return Response(control.within(tenant).manifest(digest).canonical(), media_type=JSON)

    @versions.post(f"{AT}/{{version}}/revoke", status_code=204)
    def revoke_version(
        tenant: str,
        adapter: str,
        version: str,
        caller: Annotated[Caller, people],
        revocation: Annotated[Revocation, takes(Revocation, example={"reason": "trained on the wrong data"})],
    ) -> Response:
        """For ever: no engine keeps it and no alias that shows it is served."""
        digest = owned(control, named(tenant, adapter), version)
        control.within(tenant).revoke(digest, reason=revocation.reason, actor=caller.actor)
        return Response(status_code=204)

    @versions.post(f"{AT}/{{version}}/signatures", status_code=204)
    def sign_version(
        tenant: str,
        adapter: str,
        version: str,
        caller: Annotated[Caller, trainers],
        envelope: Annotated[Envelope, takes(Envelope)],
    ) -> Response:
        """Add a trainer's signature over the manifest's canonical bytes."""
        digest = owned(control, named(tenant, adapter), version)
        control.within(tenant).sign_version(digest, envelope, actor=caller.actor)
        return Response(status_code=204)

    return versions
