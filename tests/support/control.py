"""The control API over a real registry, and a caller of each role."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from registry.blobs.memory import InMemoryShelf
from registry.blobs.uploads import Uploads
from registry.clock import ManualClock
from registry.models import Role
from server.api.app import create_app
from server.api.control import Control
from server.api.oidc import Oidc
from tests.support.registries import World, open_world

SERVICE_TOKEN = "service-token-of-the-tests-0123456789"
PREFIX = "/api/v1"
ROLES = ("platform_admin", "tenant_admin", "trainer", "inference", "nobody", "service")


@dataclass
class ControlWorld:
    world: World
    control: Control
    client: TestClient
    clock: ManualClock
    secrets: dict[tuple[str | None, str], str] = field(default_factory=dict)

    def secret(self, role: str, tenant: str | None = "bank_a") -> str:
        """A key of this role, the same one each time."""
        if role == "service":
            return SERVICE_TOKEN
        whose = None if role == "platform_admin" else tenant
        if (whose, role) not in self.secrets:
            _, secret = self.world.catalog.issue_key(whose, role=Role(role), actor="test")
            self.secrets[whose, role] = secret
        return self.secrets[whose, role]

    def headers(self, role: str, tenant: str | None = "bank_a") -> dict[str, str]:
        if role == "nobody":
            return {}
        return {"Authorization": f"Bearer {self.secret(role, tenant)}"}

    def call(
        self,
        method: str,
        path: str,
        role: str = "tenant_admin",
        *,
        tenant: str | None = "bank_a",
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> Any:  # an httpx.Response, of whichever httpx starlette found
        sent = self.headers(role, tenant) | (headers or {})
        return self.client.request(method, PREFIX + path, headers=sent, **options)


@contextmanager
def control_world(
    folder: Path, *, oidc: Oidc | None = None, store: str | None = None
) -> Iterator[ControlWorld]:
    """``store``: where its database is, see ``tests.support.stores``; default SQLite in ``folder``."""
    clock = ManualClock()
    world = open_world(folder, clock=clock, store=store)
    control = Control(
        catalog=world.catalog,
        blobs=world.blobs,
        uploads=Uploads(InMemoryShelf(clock), world.blobs),
        service_token=SERVICE_TOKEN,
        clock=clock,
        oidc=oidc,
    )
    try:
        with TestClient(create_app(control), raise_server_exceptions=False) as client:
            yield ControlWorld(world, control, client, clock)
    finally:
        world.database.close()


def with_oidc(bench: ControlWorld, oidc: Oidc) -> TestClient:
    """The same registry behind an API that also takes tokens of a provider."""
    return TestClient(create_app(replace(bench.control, oidc=oidc)), raise_server_exceptions=False)
