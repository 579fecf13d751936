"""How a version behaves, told later by a trainer: for those that were pushed without a fingerprint."""

from typing import Annotated

from fastapi import APIRouter

from registry.canonical import Document
from registry.catalog.errors import ReferenceInvalid
from registry.digests import Digest
from registry.fingerprint import Fingerprint
from registry.references import Reference
from registry.signing.envelope import Envelope
from server.api.access import TRAINERS, requires_of_tenant
from server.api.adapters import named
from server.api.bodies import takes
from server.api.caller import Caller
from server.api.control import Control
from server.api.guarded import router
from server.api.versions import AT, owned

_LARGEST = 2 << 20
"""Bytes: 64 probes take 150 kB."""


class NewReference(Document):
    envelope: Envelope
    """A trainer's signature over a ``tenon.reference/v1``."""
    fingerprint: Fingerprint


class FiledReference(Document):
    version: Digest
    fingerprint: Digest


def routes(control: Control) -> APIRouter:
    references = router()
    trainers = requires_of_tenant(control, TRAINERS)

    @references.post(f"{AT}/{{version}}/reference", status_code=201)
    def file_reference(
        tenant: str,
        adapter: str,
        version: str,
        caller: Annotated[Caller, trainers],
        wanted: Annotated[NewReference, takes(NewReference, limit=_LARGEST)],
    ) -> FiledReference:
        """The fingerprint of a version that has none. Filing it twice changes nothing; another is refused."""
        name = named(tenant, adapter)
        digest = owned(control, name, version)
        said = Reference.parse(wanted.envelope.body())
        if (said.tenant, said.adapter, said.version) != (name.tenant, name.adapter, digest):
            raise ReferenceInvalid("the reference is of another version than the path")
        catalog = control.within(tenant)
        filed = catalog.file_reference(wanted.envelope, wanted.fingerprint, actor=caller.actor)
        return FiledReference(version=filed, fingerprint=said.fingerprint)

    return references
