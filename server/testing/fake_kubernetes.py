"""The part of a Kubernetes API server that lists and watches EndpointSlices, in memory and over HTTP.

Kept to https://kubernetes.io/docs/reference/using-api/api-concepts/: resource versions that grow with every
change, watches that begin behind one, bookmarks, 410 Gone for one that was forgotten, 401 for a token that
has expired, pages with ``continue``.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

from aiohttp import web

from server.engines.discovery.slices import PATH, SERVICE

_GONE = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410}


def endpoint(pod: str, address: str, *, terminating: bool = False, namespace: str = "prod") -> dict[str, Any]:
    return {
        "addresses": [address],
        "conditions": {"ready": True, "serving": not terminating, "terminating": terminating},
        "nodeName": "node-1",
        "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod, "uid": "0b1c"},
    }


class FakeKubernetes:
    def __init__(self, *, namespace: str = "prod", page: int = 500) -> None:
        self.token = "token-1"  # noqa: S105 (made up)
        self.namespace = namespace
        self.asked: list[dict[str, str]] = []
        """The query of every request that was let in."""
        self.refused = 0
        """Requests with another token."""
        self.ends_at_once = False
        self._page = page
        self._version = 100
        self._oldest = 100
        self._slices: dict[str, dict[str, Any]] = {}
        self._events: list[tuple[int, bytes]] = []
        self._raw: list[tuple[bytes, bool]] = []
        self._changed = asyncio.Condition()

    async def put(
        self,
        name: str,
        *endpoints: Mapping[str, Any],
        service: str = "tenon-engine",
        ports: Mapping[str, int] | None = None,
    ) -> None:
        """A slice as the endpoint slice controller writes it."""
        kind = "MODIFIED" if name in self._slices else "ADDED"
        self._version += 1
        self._slices[name] = {
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "resourceVersion": str(self._version),
                "generation": 1,
                "labels": {
                    SERVICE: service,
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
            },
            "addressType": "IPv4",
            "endpoints": [dict(each) for each in endpoints],
            "ports": [
                {"name": port, "port": number, "protocol": "TCP"}
                for port, number in (ports or {"agent": 8410, "vllm": 8411}).items()
            ],
        }
        await self._say(kind, self._slices[name])

    async def delete(self, name: str) -> None:
        self._version += 1
        found = self._slices.pop(name)
        found["metadata"]["resourceVersion"] = str(self._version)
        await self._say("DELETED", found)

    async def bookmark(self) -> None:
        """Other things change, too: the version grows, and nothing else is told."""
        self._version += 7
        await self._say("BOOKMARK", {"metadata": {"resourceVersion": str(self._version)}})

    async def forget(self) -> None:
        """History is compacted: whoever was not watching has to list again, and who was is told so."""
        self._version += 1
        self._oldest = self._version
        self._events.clear()
        await self.send(json.dumps({"type": "ERROR", "object": _GONE}).encode() + b"\n")

    async def send(self, data: bytes, *, cut: bool = False) -> None:
        """These bytes to every open watch; ``cut``: and the connection is lost."""
        self._raw.append((data, cut))
        async with self._changed:
            self._changed.notify_all()

    @asynccontextmanager
    async def serving(self, *, port: int = 0, tls: SSLContext | None = None) -> AsyncIterator[str]:
        """The URL."""
        app = web.Application()
        app.router.add_get(PATH.format(namespace=self.namespace), self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls, reuse_address=True)
        await site.start()
        try:
            bound = runner.addresses[0][1]
            yield f"{'https' if tls else 'http'}://127.0.0.1:{bound}"
        finally:
            await runner.cleanup()

    async def _say(self, kind: str, told: Mapping[str, Any]) -> None:
        line = json.dumps({"type": kind, "object": self._whole(told)}).encode() + b"\n"
        self._events.append((self._version, line))
        async with self._changed:
            self._changed.notify_all()

    @staticmethod
    def _whole(told: Mapping[str, Any]) -> dict[str, Any]:
        return {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", **told}

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            self.refused += 1
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        query = dict(request.query)
        self.asked.append(query)
        if query.get("watch"):
            return await self._watch(request, int(query["resourceVersion"]))
        wanted = query.get("labelSelector", "").partition(" in (")[2].rstrip(")").split(",")
        chosen = [
            self._slices[name]
            for name in sorted(self._slices)
            if self._slices[name]["metadata"]["labels"][SERVICE] in wanted
        ]
        start = int(query.get("continue", "0"))
        size = min(self._page, int(query.get("limit", "500")))
        metadata = {"resourceVersion": str(self._version)}
        if start + size < len(chosen):
            metadata["continue"] = str(start + size)
        return web.json_response(
            {
                "kind": "EndpointSliceList",
                "apiVersion": "discovery.k8s.io/v1",
                "metadata": metadata,
                "items": chosen[start : start + size],
            }
        )

    async def _watch(self, request: web.Request, after: int) -> web.StreamResponse:
        if after < self._oldest:
            return web.json_response(_GONE, status=410)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        raw = len(self._raw)
        while not self.ends_at_once:
            for version, line in list(self._events):
                if version > after:
                    after = version
                    await answer.write(line)
            for data, cut in self._raw[raw:]:
                raw += 1
                await answer.write(data)
                if cut and request.transport is not None:
                    request.transport.abort()
                    return answer
            async with self._changed:
                while not self._news(after, raw) and not self.ends_at_once:
                    await self._changed.wait()
        return answer

    def _news(self, after: int, raw: int) -> bool:
        newest = self._events[-1][0] if self._events else 0
        return newest > after or len(self._raw) > raw
