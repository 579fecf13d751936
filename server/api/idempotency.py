"""Idempotency-Key on writes: a request whose answer got lost is sent again and does nothing twice."""

import asyncio
import hmac
import json
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from registry.catalog.answers import Claim, Kept
from registry.catalog.errors import IdempotencyInProgress, IdempotencyKeyReused
from registry.digests import Digest
from registry.errors import TenonError
from server.api import problems
from server.api.caller import Caller
from server.api.control import Control
from server.errors import InvalidIdempotencyKey

HEADER: Final = "idempotency-key"
REPLAYED: Final = "Idempotency-Replayed"
WRITES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_KEY: Final = re.compile(r"[!-~]{1,255}", re.ASCII)
_PATIENCE: Final = 2.0
"""Seconds that a repetition waits for the first request, before it is told to come again."""
_POLL: Final = 0.05
_HEADERS: Final = ("content-type", "etag", "location")
_NONCE: Final = 12

Answer = Callable[[Request], Awaitable[Response]]


async def once(
    request: Request, body: bytes, *, control: Control, caller: Caller, answer: Answer
) -> Response:
    """The answer, from ``answer`` or from the request before that was the same."""
    key = request.headers.get(HEADER)
    if key is None or request.method not in WRITES:
        return await answer(request)
    if not _KEY.fullmatch(key):
        raise InvalidIdempotencyKey("the idempotency key is not 1 to 255 visible ASCII characters")
    asked = _asked(request, body)
    claim = await _begin(control, caller.actor, key, asked)
    if isinstance(claim, Kept):
        return _replayed(control, Claim(caller.actor, key, asked, ""), claim)
    try:
        try:
            response = await answer(request)
        except TenonError as error:
            response = problems.of(error)
        if response.status_code >= 500:
            await run_in_threadpool(control.answers.drop, claim)
            return response
    except Exception:
        await run_in_threadpool(control.answers.drop, claim)
        raise
    headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
    await run_in_threadpool(
        control.answers.finish,
        claim,
        status=response.status_code,
        headers=json.dumps(headers),
        body=_sealed(control, claim, bytes(response.body)),
    )
    return response


async def _begin(control: Control, actor: str, key: str, asked: Digest) -> Claim | Kept:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE
    while True:
        try:
            return await run_in_threadpool(control.answers.begin, actor, key, asked)
        except IdempotencyInProgress:
            if loop.time() >= deadline:
                raise
        await asyncio.sleep(_POLL)


def _asked(request: Request, body: bytes) -> Digest:
    parts = (
        request.method.encode(),
        request.url.path.encode(),
        request.url.query.encode(),
        request.headers.get("if-match", "").encode(),
        body,
    )
    return Digest.of(b"".join(b"%d:%b" % (len(part), part) for part in parts))


def _replayed(control: Control, claim: Claim, kept: Kept) -> Response:
    headers = json.loads(kept.headers) | {REPLAYED: "true"}
    return Response(_opened(control, claim, kept.body), status_code=kept.status, headers=headers)


def _sealed(control: Control, claim: Claim, body: bytes) -> str:
    """Encrypted: the answer may be a new key's secret, which the database must not tell anybody."""
    nonce = os.urandom(_NONCE)
    return b64encode(nonce + AESGCM(_secret(control, claim)).encrypt(nonce, body, None)).decode()


def _opened(control: Control, claim: Claim, text: str) -> bytes:
    raw = b64decode(text)
    try:
        return AESGCM(_secret(control, claim)).decrypt(raw[:_NONCE], raw[_NONCE:], None)
    except InvalidTag:  # the service token was replaced meanwhile: the answer is lost, the deed is not
        raise IdempotencyKeyReused("the answer to this idempotency key can no longer be read") from None


def _secret(control: Control, claim: Claim) -> bytes:
    """One key an answer."""
    said = "\0".join(("tenon answer", claim.actor, claim.key, claim.request))
    return hmac.digest(control.service_token.encode(), said.encode(), "sha256")
