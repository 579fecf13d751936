"""constrain: what the policy of a route makes of a question, ready for any engine.

Bounds refuse instead of clamping: a client that asked for 4,000 tokens and silently got 256 would take the
cut answer for the whole one.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from registry import canonical
from registry.errors import InvalidDocument
from router.errors import (
    InvalidRequest,
    ResponseFormatConflict,
    SamplingOutOfBounds,
    UnsupportedParameter,
)
from router.policies import CompiledPolicy
from router.request import Question
from router.resolution import Target

_SALT_DOMAIN = b"tenon/cache-salt/v1"


@dataclass(frozen=True, slots=True)
class Order:
    """One engine request: its bytes, and what the answer to it must look like."""

    body: bytes
    engine_name: str
    public_name: str
    choices: int
    stream: bool
    include_usage: bool
    logprobs: bool
    policy: CompiledPolicy


def constrain(question: Question, target: Target, salt_secret: bytes) -> Order:
    """Raises SamplingOutOfBounds, ResponseFormatConflict, UnsupportedParameter, InvalidRequest."""
    policy = target.policy
    fields: dict[str, Any] = {
        **question.options,
        "model": target.live.engine_name,
        "messages": _messages(question, policy),
        "stream": question.stream,
        "n": question.choices,
        "cache_salt": cache_salt(salt_secret, target.route.tenant, policy.digest, target.live.epoch),
        **_sampling(question, policy),
    }
    response_format = _response_format(question, policy)
    if response_format is not None:
        fields["response_format"] = response_format
    if question.stream:
        # Always asked for, because usage is metered; passed on only to clients that asked for it too.
        fields["stream_options"] = {"include_usage": True}
    return Order(
        body=orjson.dumps(fields),
        engine_name=target.live.engine_name,
        public_name=target.route.model,
        choices=question.choices,
        stream=question.stream,
        include_usage=question.include_usage,
        logprobs=question.logprobs,
        policy=policy,
    )


def cache_salt(secret: bytes, tenant: str, policy: str, epoch: int) -> str:
    """Keeps one tenant's prefix-cache hits from being timed by another (CVE-2025-46570).

    NUL separates the parts: none of them can contain it.
    """
    message = b"\0".join((_SALT_DOMAIN, tenant.encode(), policy.encode(), str(epoch).encode()))
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def _messages(question: Question, policy: CompiledPolicy) -> list[Mapping[str, str]]:
    system = policy.policy.system_prompt
    own = [{"role": "system", "content": system}] if system else []
    return [*own, *question.messages]


def _sampling(question: Question, policy: CompiledPolicy) -> dict[str, Any]:
    bounds = policy.policy.sampling
    tokens = bounds.max_tokens if question.max_tokens is None else question.max_tokens
    if tokens > bounds.max_tokens:
        raise SamplingOutOfBounds(
            f"the policy allows at most {bounds.max_tokens} tokens an answer", param="max_tokens"
        )
    # The default obeys the bound too, should a policy contradict itself.
    temperature = min(bounds.temperature, bounds.max_temperature)
    if question.temperature is not None:
        temperature = question.temperature
    if temperature > bounds.max_temperature:
        raise SamplingOutOfBounds(
            f"the policy allows a temperature of at most {bounds.max_temperature:g}", param="temperature"
        )
    if question.choices > 1 and temperature < 1e-5:  # vLLM's bound for greedy decoding
        raise InvalidRequest("n above 1 needs a temperature above 0: greedy answers are all equal", param="n")
    return {"max_tokens": tokens, "temperature": temperature}


def _response_format(question: Question, policy: CompiledPolicy) -> Mapping[str, Any] | None:
    asked = question.response_format
    kind = asked.get("type") if asked is not None else "text"
    if kind not in ("text", "json_object", "json_schema"):
        raise InvalidRequest("response_format.type is unknown", param="response_format")
    if policy.response_format is None:
        if kind == "json_schema":
            raise UnsupportedParameter(
                "this route's policy has no schema, and a client's schema is not applied",
                hint="publish the schema as the route's policy, or ask for json_object",
                param="response_format",
            )
        return {"type": "json_object"} if kind == "json_object" else None
    if kind == "json_schema" and asked is not None and not _same_schema(asked, policy):
        raise ResponseFormatConflict(
            "response_format asks for another schema than the policy's", param="response_format"
        )
    if "stop" in question.options:
        raise UnsupportedParameter(
            "stop cannot be combined with a policy's schema: it would cut the JSON", param="stop"
        )
    return policy.response_format


def _same_schema(asked: Mapping[str, Any], policy: CompiledPolicy) -> bool:
    described = asked.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    try:
        return schema is not None and canonical.encode(schema) == policy.schema_bytes
    except InvalidDocument:
        return False
