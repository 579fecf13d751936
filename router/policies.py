"""A policy as requests need it: all that can be known before a request comes, worked out once."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from registry import canonical
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.models import ANY_TOOL, ClientSchema, OnInvalid, Policy, Retention, Sampling
from registry.schemas.validator import Validator
from router.narrowed import NarrowedSchemas

_log = logging.getLogger(__name__)
_TURN_BYTES = 32
"""Tokens that a chat template may spend around one message."""


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    digest: Digest
    policy: Policy
    schema_bytes: bytes | None
    """Canonical JSON of the schema, to compare with one that a client sends."""
    accepts: Callable[[Any], bool] | None
    """Whether a decoded answer satisfies the schema; None: there is none."""
    response_format: Mapping[str, Any] | None
    told: orjson.Fragment | None = field(default=None, compare=False)
    """``response_format`` as engines are told it, written once and not for every request."""
    opening: tuple[Mapping[str, str], ...] = ()
    """Messages that come before the client's: the system prompt and the examples."""
    tools: frozenset[str] = frozenset()
    any_tool: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Of a request that names none."""
    bounds_options: bool = False
    """Whether any option beside temperature, max_tokens and n is bounded."""
    retries: int = 0
    """How often an answer that does not satisfy the policy is asked for again."""
    retention: Retention = Retention.DIGESTS
    intent_durable: bool = False
    prompt_bytes: int = 0
    """What ``opening`` adds to every prompt."""
    narrowed: NarrowedSchemas | None = field(default=None, compare=False)
    """Clients' schemas; None: they are refused."""

    def allows_tool(self, name: str) -> bool:
        return self.any_tool or name in self.tools


def compile_policy(digest: Digest, policy: Policy) -> CompiledPolicy:
    """Raises InvalidDocument for a schema that is none, or when ``digest`` is not the policy's."""
    if policy.identity() != digest:
        raise InvalidDocument("the policy's digest does not match its content")
    schema = policy.answer_schema()
    narrow = policy.client_schema is ClientSchema.NARROW
    system = [{"role": "system", "content": policy.system_prompt}] if policy.system_prompt else []
    examples = [{"role": turn.role, "content": turn.content} for turn in policy.prompt]
    opening = (*system, *examples)
    response_format = form(policy.name, schema) if schema is not None else None
    return CompiledPolicy(
        digest,
        policy,
        canonical.encode(schema) if schema is not None else None,
        Validator(schema).accepts if schema is not None else None,
        response_format,
        told=orjson.Fragment(orjson.dumps(response_format)) if response_format is not None else None,
        opening=opening,
        prompt_bytes=sum(len(turn["content"].encode()) for turn in opening) + _TURN_BYTES * len(opening),
        tools=frozenset(policy.tools) - {ANY_TOOL},
        any_tool=ANY_TOOL in policy.tools,
        sampling=_unasked(policy.sampling),
        bounds_options=_bounded(policy.sampling) != _bounded(Sampling()),
        retries=1 if policy.on_invalid is OnInvalid.RETRY else 0,
        retention=policy.retention,
        intent_durable=policy.intent_durable,
        narrowed=NarrowedSchemas(str(digest), schema) if narrow else None,
    )


def form(name: str, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an engine is told, to hold its decoder to ``schema``."""
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


def _unasked(sampling: Sampling) -> dict[str, Any]:
    # The default obeys the bound too, should a policy of before contradict itself.
    temperature = min(sampling.temperature, sampling.max_temperature)
    fields = {"max_tokens": sampling.max_tokens, "temperature": temperature, "top_p": sampling.top_p}
    return {name: value for name, value in fields.items() if value is not None}


def _bounded(sampling: Sampling) -> tuple[Any, ...]:
    return (
        sampling.min_top_p,
        sampling.max_top_p,
        sampling.max_penalty,
        sampling.logprobs,
        sampling.max_top_logprobs,
    )


class LazyPolicy:
    """Compiled when it is first asked for: 10,000 of them at once would keep a router from starting for long
    (about 1 ms each), and a router sees requests of few tenants."""

    __slots__ = ("_compiled", "_tried", "digest", "policy")

    def __init__(self, digest: Digest, policy: Policy) -> None:
        self.digest = digest
        self.policy = policy
        self._tried = False
        self._compiled: CompiledPolicy | None = None

    @property
    def compiled(self) -> CompiledPolicy | None:
        """None: it cannot be applied."""
        if not self._tried:
            try:
                self._compiled = compile_policy(self.digest, self.policy)
            except (InvalidDocument, RecursionError):
                _log.warning("policy %s cannot be applied", self.digest.short)
            self._tried = True
        return self._compiled
