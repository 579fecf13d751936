"""A registry behind a real socket, and the catalog that speaks to it."""

import json
import socket
import threading
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import uvicorn

from registry.blobs.filesystem import FilesystemBlobs
from registry.blobs.shelf import FilesystemShelf
from registry.blobs.uploads import Uploads
from registry.catalog.local.catalog import LocalCatalog
from registry.catalog.remote.catalog import RemoteCatalog
from registry.catalog.remote.wire import Patience, Wire
from registry.contract import Contract
from registry.models import Base, Role
from server.api.app import create_app
from server.api.control import Control
from tests.support.registries import World, open_world

SERVICE_TOKEN: Final = "service-token-of-the-tests-0123456789"

NOT_OVER_HTTP: Final = frozenset({
    # Tenon's own processes, with the service token
    "announce", "announce_signed", "attest", "withdraw", "record_head", "record_heads",
    "count_usage", "usage_counted",
    "exchange_counts", "ship_records", "records_stored",
    "engine", "engines", "slots", "shown_adapters",
    "snapshot", "changes", "told", "position", "log_size",  # their feed: server.api.client
    # the registry's own machine
    "record_head_over", "record_head_known", "shipped_writers", "shipped_lines",
    "verify", "log_key", "rotate_log_key", "authenticate", "within", "answers", "named_blobs", "collect",
})  # fmt: skip
"""What a catalog on its own machine can do and one behind a URL cannot, by design."""


@dataclass
class Traffic:
    """An ASGI middleware that keeps what came in."""

    app: Any
    requests: list[tuple[str, str]] = field(default_factory=list)
    received: dict[str, int] = field(default_factory=dict)
    """Path -> bytes of request bodies."""
    along: int = 0
    """Bytes of files that came with the versions they are of."""
    before: Callable[[str, str], Awaitable[None]] | None = None
    """May hold a request up before its body is read."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path = scope["method"], scope["path"]
        self.requests.append((method, path))
        if self.before is not None:
            await self.before(method, path)

        body = bytearray()

        async def counted() -> Any:
            message = await receive()
            piece = message.get("body", b"")
            self.received[path] = self.received.get(path, 0) + len(piece)
            if method == "POST" and path.endswith("/versions"):
                body.extend(piece)
                if message["type"] == "http.request" and not message.get("more_body"):
                    contents = json.loads(body).get("contents", {})
                    self.along += sum(len(b64decode(text)) for text in contents.values())
            return message

        await self.app(scope, counted, send)

    @property
    def blob_bytes(self) -> int:
        """Of adapters' files, however they came."""
        return self.along + sum(
            count
            for path, count in self.received.items()
            if "/uploads/" in path or ("/blobs/" in path and not path.endswith("/missing"))
        )


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The URL under which ``app`` is served meanwhile."""
    # asyncio sets TCP_NODELAY only on sockets that say they are TCP; without it a request takes 40 ms longer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=2, loop="asyncio")
        )
        ready = threading.Event()
        startup = server.startup

        async def started(sockets: Any = None) -> None:
            await startup(sockets)
            ready.set()

        server.startup = started  # type: ignore[method-assign]
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        try:
            assert ready.wait(10)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@dataclass
class Remote:
    """A world, its server, and a platform admin's catalog of it."""

    world: World
    url: str
    traffic: Traffic
    catalog: RemoteCatalog

    def as_(self, tenant: str | None, role: Role, *, patience: Patience | None = None) -> RemoteCatalog:
        """A catalog with a new key. The caller closes it."""
        _, secret = self.world.catalog.issue_key(tenant, role=role, actor="test")
        return RemoteCatalog(Wire(self.url, secret, patience=patience, pause=lambda _: None))


@contextmanager
def remote(
    folder: Path,
    *,
    bases: Sequence[tuple[Base, Contract]] = (),
    empty: bool = False,
    max_rank: int = 64,
) -> Iterator[Remote]:
    """``bases``: known besides the tiny one; ``empty``: nothing but its schema is there."""
    folder.mkdir(exist_ok=True)
    blobs = FilesystemBlobs(folder / "blobs")
    world = open_world(folder, blobs=blobs, filled=empty, max_rank=max_rank)
    uploads = Uploads(FilesystemShelf(folder / "shelf"), blobs)
    control = Control(catalog=world.catalog, blobs=blobs, uploads=uploads, service_token=SERVICE_TOKEN)
    for base, contract in bases:
        world.catalog.register_base(base, contract, actor="test")
    traffic = Traffic(create_app(control))
    _, secret = world.catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="test")
    try:
        with serving(traffic) as url, RemoteCatalog(Wire(url, secret, pause=lambda _: None)) as catalog:
            yield Remote(world, url, traffic, catalog)
    finally:
        world.database.close()


class _Either:
    """The remote catalog for whatever it can do, the local one for NOT_OVER_HTTP and nothing else."""

    def __init__(self, over_http: RemoteCatalog, here: LocalCatalog) -> None:
        self._over_http, self._here = over_http, here

    def __getattr__(self, name: str) -> Any:
        return getattr(self._here if name in NOT_OVER_HTTP else self._over_http, name)


@dataclass
class ServedWorld(World):
    """A world whose every call that can go over HTTP does."""

    actor: str = ""
    """Who all of them are made by."""


@contextmanager
def remote_world(folder: Path) -> Iterator[ServedWorld]:
    with remote(folder) as found:
        here = found.world
        yield ServedWorld(
            folder=here.folder,
            address=here.address,
            database=here.database,
            blobs=here.blobs,
            catalog=cast("LocalCatalog", _Either(found.catalog, here.catalog)),
            base=here.base,
            actor=found.catalog.whoami().actor,
        )
