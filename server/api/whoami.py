"""What a credential is worth."""

from typing import Annotated

from fastapi import APIRouter

from registry.canonical import Document
from registry.names import Name
from server.api.access import requires
from server.api.caller import Caller, Who
from server.api.control import Control
from server.api.guarded import router


class Identity(Document):
    actor: str
    """As the log names whatever this caller changes."""
    tenant: Name | None
    role: Who


def routes(control: Control) -> APIRouter:
    whoami = router()

    @whoami.get("/whoami")
    def read_caller(caller: Annotated[Caller, requires(control, Who)]) -> Identity:
        """Who the credential of this request is."""
        return Identity(actor=caller.actor, tenant=caller.tenant, role=caller.who)

    return whoami
