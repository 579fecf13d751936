"""Fakes of everything the router needs, and a small world to put into a feed. Part of the product: other
packages' tests use them, and one contract suite holds them to what the real ones do."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from registry import counting, keys
from registry.catalog.errors import RecordHeadRegressed, UsageRegressed
from registry.counting import Count, CountAnswer, CountReport
from registry.digests import Digest
from registry.feed import News, Position, Snapshot, difference
from registry.models import (
    AliasState,
    DeclaredHeader,
    EngineState,
    Key,
    Policy,
    RecordHead,
    Role,
    Route,
    Routing,
    Sampling,
    Slot,
    Tenant,
    VersionState,
)
from registry.names import LIVE
from registry.shipping import KnownHead, genesis
from registry.signing.envelope import Envelope
from registry.usage import UsageBatch
from router.errors import EngineInterrupted, NothingSent, ReceiptUnavailable
from router.ports import EngineAnswer


class FakeFeed:
    """A registry that says what it is told to say, as deltas to readers whose state it still knows."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self._snapshot = snapshot
        self._told: dict[Position, Snapshot] = {}
        self._changed = asyncio.Event()
        self._failure: Exception | None = None
        self.failed = 0
        """Reads that raised."""

    def publish(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._changed.set()

    def fail(self, error: Exception | None) -> None:
        """Every read raises ``error`` from now on; None ends it. A waiting read notices at once."""
        self._failure = error
        self._changed.set()

    async def read(self, known: Position | None, wait: float) -> News | None:
        try:
            async with asyncio.timeout(wait):
                while True:
                    self._changed.clear()
                    if self._failure is not None:
                        self.failed += 1
                        raise self._failure
                    found = self._snapshot
                    if found is not None and (known is None or found.size > known.size):
                        return self._news(known, found)
                    await self._changed.wait()
        except TimeoutError:
            return None

    def _news(self, known: Position | None, found: Snapshot) -> News:
        before = self._told.get(known) if known is not None else None
        self._told[found.position] = found
        return (before and difference(before, found)) or found


class FakeHeads:
    """Keeps what continues what it has, as the registry does; or fails."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []
        self.failure: Exception | None = None

        self.answers_lost = 0
        """So many answers get lost on their way, though their heads were kept."""

    async def known(self, writer: str) -> KnownHead:
        if self.failure is not None:
            raise self.failure
        for envelope in reversed(self.envelopes):
            head = RecordHead.parse(envelope.body())
            if head.writer == writer:
                return KnownHead(writer=writer, seq=head.seq, digest=head.digest)
        return KnownHead(writer=writer, seq=-1, digest=genesis(writer))

    async def submit(self, envelope: Envelope) -> None:
        if self.failure is not None:
            raise self.failure
        head = RecordHead.parse(envelope.body())
        before = await self.known(head.writer)
        if (head.seq, head.digest) == (before.seq, before.digest):
            return
        if (head.first, head.after) != (before.seq + 1, before.digest):
            raise RecordHeadRegressed(f"{head.writer} is known up to {before.seq}")
        self.envelopes.append(envelope)
        if self.answers_lost:
            self.answers_lost -= 1
            raise ConnectionError("the answer was lost")


class FakeUsage:
    """Counts as the registry does: a batch once, and only one that follows the newest."""

    def __init__(self) -> None:
        self.batches: list[UsageBatch] = []
        self.failure: Exception | None = None
        self.answers_lost = 0
        """So many answers get lost on their way, though their batches were counted."""

    async def counted(self, writer: str) -> int:
        if self.failure is not None:
            raise self.failure
        return max((batch.seq for batch in self.batches if batch.writer == writer), default=-1)

    async def count(self, batch: UsageBatch) -> bool:
        newest = await self.counted(batch.writer)
        if batch in self.batches and batch.seq == newest:
            return False
        if batch.seq <= newest or batch.after not in (None, newest):
            raise UsageRegressed(f"the batch follows {batch.after}, not {newest}")
        self.batches.append(batch)
        if self.answers_lost:
            self.answers_lost -= 1
            raise ConnectionError("the answer was lost")
        return True


class FakePeers:
    """Other routers that hold ``receipts``; ``sure`` is False while one of them does not answer."""

    def __init__(self) -> None:
        self.receipts: dict[str, bytes] = {}
        self.sure = True
        self.asked: list[tuple[str, list[tuple[bytes, bytes]]]] = []

    async def receipt(self, record: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        self.asked.append((record, list(headers)))
        found = self.receipts.get(record)
        if found is None and not self.sure:
            raise ReceiptUnavailable
        return found

    async def close(self) -> None:
        """Nothing is open."""


class FakeCounters:
    """One place where the routers of a test meet; ``now`` gives seconds since 1970."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._kept: dict[tuple[str, str, int, str], tuple[int, int, float]] = {}
        """(subject, kind, slot, writer) -> (seq, value, until)."""
        self.failure: Exception | None = None
        self.answers_lost = 0
        """So many answers get lost on their way, though what they answer was counted."""
        self.reports: list[CountReport] = []

    async def exchange(self, report: CountReport) -> CountAnswer:
        if self.failure is not None:
            raise self.failure
        self.reports.append(report)
        now = self._now()
        for count in report.counts:
            key = (count.subject, count.kind, count.slot, report.writer)
            if report.seq > self._kept.get(key, (-1, 0, 0.0))[0]:
                self._kept[key] = (
                    report.seq,
                    count.value,
                    min(counting.until(count, now), now + 2 * counting.DAY_SECONDS),
                )
        self._kept = {key: kept for key, kept in self._kept.items() if kept[2] > now}
        if self.answers_lost:
            self.answers_lost -= 1
            raise ConnectionError("the answer was lost")
        sums: Counter[tuple[str, str, int]] = Counter()
        routers = 0
        for (subject, kind, slot, writer), (_, value, _) in self._kept.items():
            if writer != report.writer:
                routers += kind == "router"
                if subject in report.about and value:
                    sums[subject, kind, slot] += value
        return CountAnswer(
            counts=tuple(
                Count.build({"subject": subject, "kind": kind, "slot": slot, "value": value})
                for (subject, kind, slot), value in sorted(sums.items())
            ),
            routers=routers,
        )


@dataclass
class FakeAnswer:
    """Pieces of a body; an exception among them is raised when its turn comes."""

    status: int
    pieces: Sequence[bytes | Exception]
    closed: bool = False
    hold: asyncio.Event | None = None
    """If set, the last piece waits for it (to hang up meanwhile, or to look at leases)."""
    _next: int = 0

    async def read(self) -> bytes:
        if self._next == len(self.pieces):
            return b""
        if self.closed:
            raise EngineInterrupted
        if self.hold is not None and self._next == len(self.pieces) - 1:
            await self.hold.wait()
        piece = self.pieces[self._next]
        self._next += 1
        if isinstance(piece, Exception):
            raise piece
        return piece or await self.read()

    async def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Asked:
    url: str
    body: dict[str, Any]
    traceparent: bytes = b""


def completion(body: Mapping[str, Any], content: str = "fine", **changes: Any) -> dict[str, Any]:
    """What an honest vLLM answers to ``body``, with the extras that must not reach a client."""
    return {
        "id": "chatcmpl-engine",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": content, "tool_calls": [], "reasoning": None},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
                "token_ids": None,
            }
            for index in range(body.get("n", 1))
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        "system_fingerprint": "vllm",
        "prompt_logprobs": None,
        "prompt_token_ids": [1, 2, 3],
        "kv_transfer_params": {"secret": 1},
    } | changes


def chunk(
    body: Mapping[str, Any], content: str | None, *, finish: str | None = None, index: int = 0
) -> bytes:
    """One event of an honest stream."""
    delta = {} if content is None else {"content": content}
    value = {
        "id": "chatcmpl-engine",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
        "choices": [
            {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish, "token_ids": None}
        ],
        "prompt_token_ids": None,
    }
    return b"data: " + orjson.dumps(value) + b"\n\n"


def usage_chunk(body: Mapping[str, Any]) -> bytes:
    value = {
        "id": "chatcmpl-engine",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
    return b"data: " + orjson.dumps(value) + b"\n\n"


def stream(body: Mapping[str, Any], parts: Iterable[str]) -> list[bytes]:
    """All events of an honest stream, usage and ``[DONE]`` included."""
    words = [chunk(body, part, index=i) for part in parts for i in range(body.get("n", 1))]
    ends = [chunk(body, "", finish="stop", index=i) for i in range(body.get("n", 1))]
    return [*words, *ends, usage_chunk(body), b"data: [DONE]\n\n"]


Script = Callable[[dict[str, Any]], FakeAnswer]


def honest(content: str = "fine") -> Script:
    """Answers every question with ``content``, streamed in single characters if a stream is asked for."""

    def answer(body: dict[str, Any]) -> FakeAnswer:
        if body.get("stream"):
            return FakeAnswer(200, stream(body, content))
        return FakeAnswer(200, [orjson.dumps(completion(body, content))])

    return answer


class FakeEngines:
    """Engines by the start of their URL; each runs a script. ``down`` ones cannot be reached."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script if script is not None else honest()
        self.scripts: dict[str, Script] = {}
        self.down: set[str] = set()
        self.asked: list[Asked] = []
        self.answers: list[FakeAnswer] = []

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def ask(self, url: str, body: bytes, traceparent: bytes = b"") -> EngineAnswer:
        if any(url.startswith(prefix) for prefix in self.down):
            raise NothingSent
        question = orjson.loads(body)
        self.asked.append(Asked(url, question, traceparent))
        script = next((s for prefix, s in self.scripts.items() if url.startswith(prefix)), self.script)
        answer = script(question)
        self.answers.append(answer)
        return answer


BASE = Digest.of(b"the base of the fake world")


@dataclass
class Scene:
    """A world under construction; ``snapshot()`` is the next state of its log."""

    size: int = 0
    tenants: dict[str, Tenant] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)
    policies: dict[Digest, Policy] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    headers: dict[str, tuple[DeclaredHeader, ...]] = field(default_factory=dict)
    """Tenant -> declared headers; derived from its routes when not given."""
    aliases: list[AliasState] = field(default_factory=list)
    versions: list[VersionState] = field(default_factory=list)
    engines: list[EngineState] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    _made: int = 0

    def tenant(self, name: str) -> None:
        self.tenants.setdefault(name, Tenant(id=name, display_name=name))

    def key(self, tenant: str, role: Role = Role.INFERENCE, *, revoked: bool = False) -> str:
        """A new key; returns its secret."""
        self.tenant(tenant)
        self._made += 1
        made = self._made
        identity, secret = keys.mint(lambda n: made.to_bytes(n, "big"))
        hashed = Digest.of(secret.encode())
        self.keys.append(Key(id=identity, tenant=tenant, role=role, secret_hash=hashed, revoked=revoked))
        return secret

    def policy(
        self,
        tenant: str,
        schema: Mapping[str, Any] | None = None,
        *,
        name: str = "house",
        system_prompt: str | None = None,
        sampling: Sampling | None = None,
        **parts: Any,
    ) -> Digest:
        """``parts``: what else the policy says."""
        text = orjson.dumps(schema).decode() if schema is not None else None
        policy = Policy(
            tenant=tenant,
            name=name,
            json_schema=text,
            system_prompt=system_prompt,
            sampling=sampling or Sampling(),
            **parts,
        )
        self.policies[policy.identity()] = policy
        return policy.identity()

    def version(self, tenant: str, adapter: str = "desk", *, alias: str = LIVE) -> Digest:
        """A new version with an alias that points to it."""
        self.tenant(tenant)
        self._made += 1
        digest = Digest.of(f"{tenant}/{adapter} {self._made}".encode())
        self.versions.append(VersionState(version=digest, tenant=tenant, adapter=adapter, base=BASE, rank=8))
        self.aliases.append(AliasState(tenant=tenant, adapter=adapter, alias=alias, version=digest, epoch=1))
        return digest

    def route(
        self,
        tenant: str,
        policy: Digest,
        *,
        model: str = "assistant",
        adapter: str = "desk",
        when: Mapping[str, str] | None = None,
    ) -> None:
        self.routes.append(
            Route(
                tenant=tenant,
                name=f"route-{len(self.routes)}",
                model=model,
                adapter=adapter,
                policy=policy,
                when=dict(when or {}),
            )
        )

    def engine(self, name: str = "engine-0", url: str = "http://engine-0", *, up: bool = True) -> None:
        self.engines.append(
            EngineState(
                engine=name,
                boot=f"boot-{name}",
                url=url,
                base=BASE,
                engine_version="0.32.0",
                dtype="float32",
                max_loras=8,
                up=up,
            )
        )

    def attest(self, version: Digest, engine: str = "engine-0", *, boot: str | None = None) -> None:
        finding = Digest.of(f"attestation {engine} {version}".encode())
        self.slots.append(
            Slot(engine=engine, boot=boot or f"boot-{engine}", version=version, attestation=finding)
        )

    def serve(
        self,
        tenant: str,
        schema: Mapping[str, Any] | None = None,
        *,
        model: str = "assistant",
        **policy: Any,
    ) -> str:
        """Everything that one tenant needs for a default route on every engine; returns a key's secret.

        ``policy``: what :meth:`policy` takes.
        """
        version = self.version(tenant)
        self.route(tenant, self.policy(tenant, schema, **policy), model=model)
        for engine in self.engines:
            self.attest(version, engine.engine)
        return self.key(tenant)

    def snapshot(self) -> Snapshot:
        self.size += 1
        return Snapshot(
            size=self.size,
            root=Digest.of(f"root {self.size}".encode()),
            tenants=tuple(self.tenants.values()),
            keys=tuple(self.keys),
            policies=dict(self.policies),
            routings=tuple(
                Routing(
                    tenant=tenant,
                    revision=1,
                    headers=self.headers.get(tenant, ()),
                    routes=tuple(route for route in self.routes if route.tenant == tenant),
                )
                for tenant in sorted({route.tenant for route in self.routes})
            ),
            aliases=tuple(self.aliases),
            versions=tuple(self.versions),
            engines=tuple(self.engines),
            slots=tuple(self.slots),
        )
