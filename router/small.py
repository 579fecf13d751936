"""The small routes beside the surfaces: models, receipts, health and metrics."""

import logging
import secrets
from typing import Any

import orjson

from registry.signing.keys import Signer
from router import metrics, problems, receipts
from router.auth import authenticate
from router.elsewhere import elsewhere
from router.errors import InvalidApiKey, ModelNotFound, PathNotFound, RouterError
from router.exchange import Exchange, Message, RawHeaders
from router.pipeline import Pipeline
from router.ports import Peers
from router.reach import Reach
from router.tables import Principal, Tables

_log = logging.getLogger(__name__)


class SmallRoutes:
    def __init__(
        self,
        pipeline: Pipeline,
        *,
        signer: Signer,
        metrics: metrics.Metrics,
        metrics_token: str | None,
        reach: Reach,
        peers: Peers | None,
    ) -> None:
        self._feed = pipeline.feed
        self._records = pipeline.log
        self._drain = pipeline.drain
        self._clock = pipeline.clock
        self._tokens = pipeline.tokens
        self._signer = signer
        self._metrics = metrics
        self._metrics_token = metrics_token
        self._reach = reach
        self._peers = peers
        self._routes = {
            "/v1/models": self._models,
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._scrape,
        }

    async def answer(self, exchange: Exchange, scope: Message) -> None:
        path = scope["path"]
        try:
            if scope["method"] != "GET":
                raise PathNotFound
            if path in self._routes:
                await self._routes[path](exchange)
            elif path.startswith("/v1/models/"):
                await self._model(exchange, path.removeprefix("/v1/models/"))
            elif path.startswith("/v1/receipts/"):
                await self._receipt(exchange, path.removeprefix("/v1/receipts/"))
            else:
                raise PathNotFound
        except Exception as error:
            if not isinstance(error, RouterError):
                _log.exception("unexpected in a small route")
            if not exchange.started:
                refusal = problems.public(error)
                await exchange.respond(refusal.status, problems.body(refusal), _challenge(refusal))

    def _authenticate(self, exchange: Exchange, tables: Tables) -> Principal:
        now = self._clock.now()
        return authenticate(exchange.headers, tables, now, self._tokens)

    async def _models(self, exchange: Exchange) -> None:
        tables = self._feed.tables()
        principal = self._authenticate(exchange, tables)
        listed = [_card(name, principal) for name in tables.models(principal.tenant)]
        await exchange.respond(200, orjson.dumps({"object": "list", "data": listed}), [])

    async def _model(self, exchange: Exchange, name: str) -> None:
        tables = self._feed.tables()
        principal = self._authenticate(exchange, tables)
        if name not in tables.routes.get(principal.tenant, ()):
            raise ModelNotFound
        await exchange.respond(200, orjson.dumps(_card(name, principal)), [])

    async def _receipt(self, exchange: Exchange, record: str) -> None:
        principal = self._authenticate(exchange, self._feed.tables())
        line = await self._records.read(record, principal.tenant)
        if line is not None:
            found = receipts.issue(line, self._signer).canonical()
        else:
            found = await elsewhere(self._peers, record, principal.tenant, exchange.headers)
        await exchange.respond(200, found, [])

    async def _healthz(self, exchange: Exchange) -> None:
        await exchange.respond(200, b'{"ok":true}', [])

    async def _readyz(self, exchange: Exchange) -> None:
        reasons = ["this router is about to stop"] if self._drain.under_way else []
        reasons += [*self._feed.reasons(), *self._reach.reasons()]
        if self._records.fault is not None:
            reasons.append(f"records cannot be written: {self._records.fault}")
        body: dict[str, Any] = {"ready": not reasons, "reasons": reasons}
        await exchange.respond(503 if reasons else 200, orjson.dumps(body), [])

    async def _scrape(self, exchange: Exchange) -> None:
        if self._metrics_token is not None:
            shown = exchange.headers.every("authorization")
            expected = f"Bearer {self._metrics_token}".encode()
            if len(shown) != 1 or not secrets.compare_digest(shown[0].encode(), expected):
                raise InvalidApiKey
        body = self._metrics.render()
        await exchange.respond(200, body, [(b"content-type", metrics.CONTENT_TYPE.encode())])


def _card(name: str, principal: Principal) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": principal.tenant}


def _challenge(error: RouterError) -> RawHeaders:
    return [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
