"""A whole router on fakes, spoken to as an ASGI server would."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from registry.clock import ManualClock
from registry.models import PublicKey
from registry.signing.keys import Signer
from router.app import RouterApp, create_app
from router.limits import Cadence, Freshness, Limits
from router.records import Record, content_digest
from router.testing import FakeEngines, FakeFeed, FakeHeads, Scene

SALT = b"a salt secret of thirty-two bytes"
QUESTION: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "pay Norvik"}]}


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that other tasks bring about; fails after ten seconds."""
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110 (what is waited for has no event of its own)
            await asyncio.sleep(0.001)


@dataclass
class Response:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json()["error"]["code"])

    @property
    def record(self) -> str:
        return self.headers["x-tenon-record"]

    def events(self) -> list[Any]:
        """Data of each event; ``[DONE]`` stays text."""
        lines = [line[6:] for line in self.body.split(b"\n\n") if line]
        return ["[DONE]" if line == b"[DONE]" else orjson.loads(line) for line in lines]

    def text(self) -> str:
        choices = [choice for event in self.events()[:-1] for choice in event.get("choices", [])]
        return "".join(choice["delta"].get("content", "") for choice in choices)


class Call:
    """One request under way; ``hang_up`` is the client closing the connection."""

    def __init__(
        self, app: RouterApp, method: str, path: str, headers: list[tuple[str, str]], body: list[bytes]
    ) -> None:
        self.response = Response()
        self.observe: Callable[[bytes], None] = lambda _: None
        """Called with each piece of the body as it is sent."""
        self._gone = asyncio.Event()
        self._inbox: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": index < len(body) - 1}
            for index, piece in enumerate(body)
        ]
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    def hang_up(self) -> None:
        self._gone.set()

    async def done(self) -> Response:
        await self.task
        return self.response

    async def _receive(self) -> dict[str, Any]:
        if self._inbox:
            return self._inbox.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.response.status, "two response heads"
            self.response.status = message["status"]
            self.response.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            assert self.response.status, "a body before its head"
            assert not self.response.complete, "bytes after the end"
            self.observe(message["body"])
            if message["body"]:
                self.response.pieces.append(message["body"])
            self.response.complete = not message.get("more_body", False)


class House:
    """One router, its world and its fakes."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.scene = Scene()
        self.feed = FakeFeed()
        self.engines = FakeEngines()
        self.heads = FakeHeads()
        self.signer = Signer.generate("router")
        self.clock = ManualClock()
        self.now = 1000.0
        chosen: dict[str, Any] = {
            "limits": Limits(body_bytes=20_000, body_seconds=5),
            "freshness": Freshness(wait=5, serve=300),
            "cadence": Cadence(head_seconds=3600, retry_seconds=0.01),
        } | settings
        self.app = create_app(
            feed=self.feed,
            heads=self.heads,
            signer=self.signer,
            records_dir=folder,
            writer="router-0",
            salt_secret=SALT,
            engines=chosen.pop("engines", self.engines),
            clock=self.clock,
            ticks=lambda: self.now,
            **chosen,
        )

    @property
    def trusted(self) -> dict[str, PublicKey]:
        return {self.signer.public.id: self.signer.public}

    async def publish(self) -> None:
        """The scene as it is now, in force when this returns."""
        snapshot = self.scene.snapshot()
        self.feed.publish(snapshot)
        await until(lambda: self.app.feed.latest is not None and self.app.feed.latest.size == snapshot.size)

    def call(
        self,
        secret: str | None,
        body: Mapping[str, Any] | bytes | list[bytes],
        *,
        headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
        method: str = "POST",
        path: str = "/v1/chat/completions",
    ) -> Call:
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
        if secret is not None:
            pairs.append(("Authorization", f"Bearer {secret}"))
        pieces = body if isinstance(body, list) else [body if isinstance(body, bytes) else orjson.dumps(body)]
        return Call(self.app, method, path, pairs, pieces)

    async def ask(
        self,
        secret: str | None,
        changes: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    ) -> Response:
        """The usual question with ``changes``."""
        return await self.call(secret, {**QUESTION, **(changes or {})}, headers=headers).done()

    async def next_second(self) -> None:
        """What was counted is on disk, and the next refusals leave records of their own again."""
        groups = self.app._groups
        groups._write()
        await asyncio.gather(*groups._writing)

    async def get(self, path: str, secret: str | None = None) -> Response:
        return await self.call(secret, [b""], method="GET", path=path).done()

    def records(self) -> list[Record]:
        files = sorted((self.folder / "router-0").glob("*.jsonl"))
        return [Record.parse(line) for file in files for line in file.read_bytes().splitlines()]

    def outcome(self, response: Response) -> Record:
        """The one outcome of a response, with its intents (if any) before it."""
        mine = [record for record in self.records() if record.id == response.record]
        assert [record.event for record in mine] == ["intent"] * (len(mine) - 1) + ["outcome"]
        return mine[-1]


def digest_of_text(text: str) -> str:
    return content_digest([text])
