"""The control API from the other side: what routers and engine agents hold in their hands."""

import asyncio
from types import TracebackType
from typing import Any, Self

import aiohttp

from registry.canonical import decode, encode
from registry.catalog.errors import RecordHeadRegressed
from registry.counting import CountAnswer, CountReport
from registry.digests import Digest
from registry.errors import BlobCorrupt, InvalidDocument
from registry.feed import News, Position, parse
from registry.manifests import Manifest
from registry.models import Base
from registry.shipping import KnownHead, RecordBatch, Stored
from registry.signing.envelope import Envelope
from registry.usage import UsageBatch, UsageCounted
from server.errors import ControlBusy, ControlRefused, ControlUnreachable

_FIRST_STATE = 120.0
"""Seconds for everything at once, which the control plane may have to put together first."""


class ControlClient:
    """``FeedSource``, ``HeadSink``, ``Counters`` and ``UsageSink`` of routers; engines' ``ControlPlane``."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, known: Position | None, wait: float) -> News | None:
        """See ``router.ports.FeedSource``. Raises ControlRefused when the registry follows another log."""
        query = {"wait": str(wait)}
        if known is not None:
            query |= {"after": str(known.size), "root": known.root}
        patience = wait + (_FIRST_STATE if known is None else 10)
        body = await self._call("GET", "/api/v1/feed", params=query, timeout=patience)
        # In a thread: the state of 10,000 tenants takes a second to parse.
        return await asyncio.to_thread(parse, body) if body else None

    async def manifest(self, version: Digest) -> Manifest:
        body = await self._call("GET", f"/api/v1/versions/{version}/manifest")
        if Digest.of(body) != version:
            raise BlobCorrupt(f"the manifest received is not {version.short}")
        return Manifest.parse(body)

    async def base(self, ref: str) -> Base:
        found = decode(await self._call("GET", f"/api/v1/bases/{ref}"))
        return Base.build(found["base"])

    async def blob(self, digest: Digest) -> bytes:
        body = await self._call("GET", f"/api/v1/blobs/{digest}", timeout=600)
        if Digest.of(body) != digest:
            raise BlobCorrupt(f"the blob received is not {digest.short}")
        return body

    async def announce(self, engine: str, envelope: Envelope) -> None:
        await self._call("PUT", f"/api/v1/engines/{engine}", data=envelope.canonical())

    async def alive(self, engine: str, boot: str) -> bool:
        """See ``server.engines.ports.ControlPlane``."""
        body = await self._call(
            "POST", f"/api/v1/engines/{engine}/alive", data=encode({"boot": boot}), timeout=5
        )
        return bool(decode(body)["up"])

    async def attest(self, envelope: Envelope) -> int:
        """See ``server.engines.ports.ControlPlane``."""
        body = await self._call("POST", "/api/v1/attestations", data=envelope.canonical())
        return int(decode(body)["size"])

    async def withdraw(self, engine: str, envelope: Envelope) -> None:
        """Raises ControlRefused (``facts['problem']`` is ``engine_needed``) while nobody else serves it."""
        await self._call("POST", f"/api/v1/engines/{engine}/withdrawals", data=envelope.canonical())

    async def submit(self, envelope: Envelope) -> None:
        """See ``router.ports.HeadSink``."""
        try:
            await self._call("POST", "/api/v1/record-heads", data=envelope.canonical())
        except ControlRefused as refusal:
            if refusal.facts.get("problem") == RecordHeadRegressed.code:
                raise RecordHeadRegressed(refusal.message) from None
            raise

    async def known(self, writer: str) -> KnownHead:
        return KnownHead.parse(await self._call("GET", f"/api/v1/record-heads/{writer}"))

    async def exchange(self, report: CountReport) -> CountAnswer:
        """See ``router.ports.Counters``."""
        body = await self._call("POST", "/api/v1/counters", data=report.model_dump_json().encode(), timeout=5)
        return CountAnswer.model_validate_json(body)

    async def count(self, batch: UsageBatch) -> bool:
        """See ``router.ports.UsageSink``."""
        body = await self._call("POST", "/api/v1/usage", data=batch.canonical())
        return bool(decode(body)["counted"])

    async def counted(self, writer: str) -> int:
        return UsageCounted.parse(await self._call("GET", f"/api/v1/usage/{writer}")).seq

    async def ship(self, batch: RecordBatch) -> Stored:
        """See ``registry.catalog.LocalCatalog.ship_records``."""
        body = await self._call("POST", "/api/v1/records", data=batch.model_dump_json().encode(), timeout=60)
        return Stored.parse(body)

    async def stored(self, writer: str) -> Stored:
        return Stored.parse(await self._call("GET", f"/api/v1/records/{writer}"))

    async def _call(self, method: str, path: str, *, timeout: float = 30, **options: Any) -> bytes:  # noqa: ASYNC109
        if self._session is None:
            # Made here and not in __init__: aiohttp wants the running loop.
            self._session = aiohttp.ClientSession(headers=self._headers)
        limit = aiohttp.ClientTimeout(total=timeout)
        begun = False
        try:
            async with self._session.request(method, self._url + path, timeout=limit, **options) as answer:
                begun = True
                body = await answer.read()
                if answer.status < 300:
                    return body
                raise _refusal(f"{method} {path}: {_title(body, answer.status)}", answer.status, body)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            if begun:  # damaged bytes end so, too, when they are many: ``server.api.streams.sending``
                what = f"the control plane's answer broke off: {type(error).__name__}"
                raise ControlUnreachable(what, begun=True) from None
            raise ControlUnreachable(f"no answer from the control plane: {type(error).__name__}") from None


def _refusal(what: str, status: int, body: bytes) -> ControlRefused | ControlBusy:
    code = _said(body, "code")
    if status >= 500:
        return ControlBusy(f"the control plane could not answer {what}", status_code=status, problem=code)
    advice = None if status in (401, 403) else _said(body, "hint") or f"the control plane says: {code}"
    return ControlRefused(f"the control plane refused {what}", hint=advice, status_code=status, problem=code)


def _title(body: bytes, status: int) -> str:
    return _said(body, "title") or f"status {status}"


def _said(body: bytes, field: str) -> str:
    try:
        problem = decode(body)
        return str(problem[field])
    except (InvalidDocument, KeyError, TypeError):
        return ""
