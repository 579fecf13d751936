"""One line of the audit trail: who asked, which adapter answered, and the digests of both bodies.

Never a word of a prompt or an answer. A name that a client sent is written only once it was found to exist,
so a mistyped model name cannot smuggle text in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import orjson
from pydantic import Field

from registry import canonical
from registry.canonical import Document, later
from registry.digests import Digest

KIND: Literal["tenon.record/v1"] = "tenon.record/v1"
Event: TypeAlias = Literal["intent", "outcome", "refused", "malformed"]
_LATER = ("agrees", "engine_version", "retention", "shadow_of", "started_at", "surface")


class Record(Document):
    kind: Literal["tenon.record/v1"] = KIND
    writer: str
    seq: int = Field(ge=0)
    """Lines before this one in the writer's chain."""
    prev: Digest
    """Of the previous line's bytes (without its newline); :func:`registry.shipping.genesis` for the first."""
    id: str
    at: str
    event: Event
    """``intent``: about to ask an engine. ``outcome``: what the client got; exactly one a request that
    is not counted in ``refused``: requests that no engine was chosen for, by tenant, key and code.
    ``malformed``: bytes that were no request, so nobody's; ``code`` names the fault."""
    tenant: str | None
    key: str | None
    route: str | None
    policy: Digest | None
    model: str | None
    """Public name."""
    adapter: str | None
    alias: str | None
    epoch: int | None
    version: Digest | None
    canary: bool | None = None
    """Whether ``version`` was a canary of the alias, not its stable version; older lines do not say."""
    engine: str | None
    boot: str | None
    attestation: Digest | None
    request: Digest | None
    """Of the request body as it arrived."""
    stream: bool
    answer: Digest | None
    answer_of: Literal["body", "content"] | None
    """``body``: exactly the bytes of the response body. ``content``: :func:`content_digest` of what was
    streamed, because event framing is nothing a client keeps. Told of a stream that broke off also where no
    digest of it is kept: its client has had something."""
    status: int | None
    """HTTP status of the outcome. A stream that failed under way has the failure's, though 200 was sent."""
    code: str | None
    """Error code; None for an answer."""
    finish_reasons: tuple[str, ...]
    prompt_tokens: int | None
    completion_tokens: int | None
    milliseconds: int
    """Since the request's headers arrived."""
    # What follows came later. Where it says nothing it is left out, so that older lines keep their bytes.
    engine_version: str | None = later(None)
    """Of the vLLM that ``engine`` ran in ``boot``."""
    shadow_of: str | None = later(None)
    """The id of the primary's record, in the record of a shadow copy: nobody was given its answer."""
    agrees: bool | None = later(None)
    """In the record of a shadow copy: whether it answered exactly what the primary did."""
    started_at: str | None = later(None)
    """When the request's headers arrived; ``at`` of the outcome is when its answer was complete."""
    surface: str | None = later(None)
    """The endpoint that was asked; None in older lines: chat completions."""
    retention: Literal["none", "hmac", "full"] | None = later(None)
    """None: ``request`` and ``answer`` are plain digests. ``hmac``, ``full``: keyed with the tenant's key.
    ``none``: the policy, or one that might have applied, keeps none."""
    count: int | None = later(None, ge=1)
    """In ``refused`` and ``malformed``: how often it was met, from ``started_at`` to ``last_at``."""
    last_at: str | None = later(None)


def content_digest(contents: Sequence[str]) -> Digest:
    """Of a streamed answer: the canonical JSON array of each choice's whole text, by index.

    A client computes the same from what it received: ``content_digest(["the text"])``.
    """
    return canonical.digest_of(list(contents))


@dataclass(slots=True, kw_only=True)
class Trace:
    """What is known of a request so far; grows along the pipeline and becomes its record lines."""

    id: str
    tenant: str | None = None
    key: str | None = None
    route: str | None = None
    policy: Digest | None = None
    model: str | None = None
    adapter: str | None = None
    alias: str | None = None
    epoch: int | None = None
    version: Digest | None = None
    canary: bool | None = None
    engine: str | None = None
    boot: str | None = None
    attestation: Digest | None = None
    request: Digest | None = None
    stream: bool = False
    answer: Digest | None = None
    answer_of: Literal["body", "content"] | None = None
    status: int | None = None
    code: str | None = None
    finish_reasons: tuple[str, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    milliseconds: int = 0
    engine_version: str | None = None
    shadow_of: str | None = None
    agrees: bool | None = None
    started_at: str | None = None
    surface: str | None = None
    retention: str | None = None
    counted: bool = False
    """Refused, and counted with others: there is no record of this id."""

    def line(self, event: Event, *, writer: str, seq: int, prev: Digest, at: str) -> bytes:
        """Canonical JSON (a property test holds it to RFC 8785), in 2 µs.

        The general encoder takes 100. For what a record holds (ASCII keys, strings, small integers, null) it
        is what orjson writes, if the keys come sorted; written out here, nothing needs to be sorted.
        """
        fields = {
            "adapter": self.adapter,
            "agrees": self.agrees,
            "alias": self.alias,
            "answer": self.answer,
            "answer_of": self.answer_of,
            "at": at,
            "attestation": self.attestation,
            "boot": self.boot,
            "canary": self.canary,
            "code": self.code,
            "completion_tokens": self.completion_tokens,
            "engine": self.engine,
            "engine_version": self.engine_version,
            "epoch": self.epoch,
            "event": event,
            "finish_reasons": self.finish_reasons,
            "id": self.id,
            "key": self.key,
            "kind": KIND,
            "milliseconds": self.milliseconds,
            "model": self.model,
            "policy": self.policy,
            "prev": prev,
            "prompt_tokens": self.prompt_tokens,
            "request": self.request,
            "retention": self.retention,
            "route": self.route,
            "seq": seq,
            "shadow_of": self.shadow_of,
            "started_at": self.started_at,
            "status": self.status,
            "stream": self.stream,
            "surface": self.surface,
            "tenant": self.tenant,
            "version": self.version,
            "writer": writer,
        }
        for name in _LATER:
            if fields[name] is None:
                del fields[name]
        return orjson.dumps(fields)
