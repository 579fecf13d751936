"""The router under test, as it is deployed (uvicorn, uvloop, records on disk), in a world of many tenants.

``python -m bench.router.world FOLDER PORT ENGINE_URL``. Only the registry is a fake: its state is in memory
from the start. Every tenant has its key, adapter, route and a policy with a JSON schema.
"""

import sys
from pathlib import Path

from registry.signing.keys import Signer
from router.admission import Patience
from router.app import RouterApp, create_app
from router.testing import FakeFeed, FakeHeads, Scene
from server.assembly import listen

TENANTS = 64
SCHEMA = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "enum": ["approve", "reject", "ask"]},
        "amount": {"type": "integer", "minimum": 0},
        "reason": {"type": "string", "minLength": 1, "maxLength": 400},
    },
    "required": ["decision", "amount", "reason"],
    "additionalProperties": False,
}


def tenants() -> list[str]:
    return [f"tenant_{number}" for number in range(TENANTS)]


def scene(engine: str) -> tuple[Scene, list[str]]:
    """The world, and a key of each tenant: the same in every process."""
    found = Scene()
    found.engine(url=engine)
    # A slot for every adapter: with fewer, requests wait their turn in the router (router.admission.queue)
    # for an engine that needs none, and the figures would be the queue's.
    found.engines = [each.model_copy(update={"max_loras": TENANTS}) for each in found.engines]
    return found, [found.serve(tenant, SCHEMA) for tenant in tenants()]


def app(folder: Path, engine: str) -> RouterApp:
    world, _ = scene(engine)
    return create_app(
        feed=FakeFeed(world.snapshot()),
        heads=FakeHeads(),
        signer=Signer.generate("router"),
        records_dir=folder,
        writer="router-0",
        salt_secret=b"of the benchmark: 32 bytes and more",
        patience=Patience(running=4096),  # as many as the idle streams of the bench and more
    )


if __name__ == "__main__":
    router = app(Path(sys.argv[1]), sys.argv[3])
    listen.serve(router, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", drain=2)
