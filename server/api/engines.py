"""What engines and routers report, and which engines there are."""

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import Field

from registry.canonical import Document
from registry.catalog.fleet import Fleet
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.models import EngineState, Slot, Withdrawal
from registry.shipping import KnownHead
from registry.signing.envelope import Envelope
from server.api.access import requires
from server.api.bodies import takes
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router


class Engine(Document):
    """As its agent announced it, and what it was seen to serve."""

    state: EngineState
    slots: tuple[Slot, ...]


class Engines(Document):
    items: tuple[Engine, ...]
    next: None = None
    """An installation has few engines: they always come as one page."""


class Alive(Document):
    boot: str = Field(min_length=8, max_length=64)


class Renewed(Document):
    up: bool
    """False: this boot is not the one that is up; announce it again, unless a later one has its name."""


class Attested(Document):
    attestation: Digest
    size: int = 0
    """Of the log, with the attestation in it: a state of that size or later lists the slot, or it has ended
    since."""


def routes(control: Control) -> APIRouter:
    engines = router()
    service = requires(control, {Who.SERVICE})

    @engines.get("/engines", dependencies=[requires(control, {Who.SERVICE, Who.PLATFORM_ADMIN})])
    def list_engines() -> Engines:
        """All engines that ever announced themselves, and their attested slots."""
        slots = control.catalog.slots()
        return Engines(
            items=tuple(
                Engine(state=state, slots=tuple(slot for slot in slots if slot.engine == state.engine))
                for state in control.catalog.engines()
            )
        )

    @engines.get("/fleet", dependencies=[requires(control, {Who.PLATFORM_ADMIN})])
    def show_fleet() -> Fleet:
        """All engines, whom they are for, what each is to hold and was attested, and which are missing."""
        return control.expected.shown(control.catalog.fleet())

    @engines.put("/engines/{engine}", dependencies=[service], status_code=204)
    def announce_engine(engine: str, envelope: Annotated[Envelope, takes(Envelope)]) -> Response:
        """An agent says, signed, what its engine is: the payload is an EngineState."""
        state = EngineState.parse(envelope.body())
        if state.engine != engine:
            raise InvalidDocument("the engine in the path and in the body differ")
        control.expected.check(state)
        control.catalog.announce_signed(envelope, actor=f"engine:{engine}")
        return Response(status_code=204)

    @engines.post("/engines/{engine}/alive", dependencies=[service])
    def renew_engine(engine: str, said: Annotated[Alive, takes(Alive)]) -> Renewed:
        """An agent is still there. Not kept: an engine that says nothing for half a minute counts as down."""
        return Renewed(up=control.liveness.renew(engine, said.boot))

    @engines.post("/attestations", dependencies=[service])
    def file_attestation(envelope: Annotated[Envelope, takes(Envelope)]) -> Attested:
        """An agent's signed finding that a slot behaves as its version."""
        digest = control.catalog.attest(envelope, actor="engine")
        return Attested(attestation=digest, size=control.catalog.log_size())

    @engines.post("/engines/{engine}/withdrawals", dependencies=[service], status_code=204)
    def withdraw_versions(engine: str, envelope: Annotated[Envelope, takes(Envelope)]) -> Response:
        """An agent says, signed, what its engine stops serving (the payload is a Withdrawal); refused while
        nobody else serves it."""
        if Withdrawal.parse(envelope.body()).engine != engine:
            raise InvalidDocument("the engine in the path and in the body differ")
        control.catalog.withdraw(envelope, actor=f"engine:{engine}")
        return Response(status_code=204)

    @engines.post("/record-heads", dependencies=[service], status_code=204)
    def file_record_head(envelope: Annotated[Envelope, takes(Envelope)]) -> Response:
        """A router's signed position in its chain of records."""
        control.catalog.record_head(envelope, actor="router")
        return Response(status_code=204)

    @engines.get("/record-heads/{writer}", dependencies=[service])
    def read_record_head(
        writer: Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="A router's chain")],
    ) -> KnownHead:
        """The record that a writer's next head must follow; seq -1 before any head."""
        return control.catalog.record_head_known(writer)

    return engines
