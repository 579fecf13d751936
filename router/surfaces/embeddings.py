"""OpenAI's embeddings, for adapters of a base that embeds."""

from collections.abc import Mapping
from typing import Any

import orjson

from router import problems
from router.errors import (
    EndpointNotAllowed,
    EndpointUnsupported,
    EngineAnswered,
    EngineFailed,
    InvalidRequest,
    RouterError,
)
from router.limits import Limits
from router.metering import read_usage
from router.resolution import Target
from router.surfaces import engine, fields
from router.surfaces.completions.order import refuse_conversation
from router.surfaces.completions.question import prompts
from router.surfaces.fields import Check
from router.surfaces.salt import cache_salt
from router.surfaces.surface import Order, Question, Rewritten, Streamed

MOST_INPUTS = 2048
"""OpenAI's bound."""


class Embeddings:
    name = "embeddings"
    path = "/v1/embeddings"
    upstream = "/v1/embeddings"
    prefix = "embd-"
    optional = True  # vLLM has the path only when its model embeds

    def parse(self, body: bytes, limits: Limits) -> Question:
        given = fields.allowed(fields.decode(body), FIELDS)
        fields.required(given, "model", "input")
        if len(given["input"]) > MOST_INPUTS:
            raise InvalidRequest(f"input may hold at most {MOST_INPUTS} texts", param="input")
        return Question(
            model=given["model"],
            prompts=given["input"],
            choices=0,
            max_tokens=0,
            user=given.get("user"),
            options={name: given[name] for name in PASSED_ON if name in given},
        )

    def order(self, question: Question, target: Target, salt_secret: bytes) -> Order:
        """Raises EndpointNotAllowed: what a policy demands of an answer cannot be demanded of numbers."""
        policy = target.policy
        refuse_conversation(policy)
        if policy.policy.json_schema is not None:
            raise EndpointNotAllowed("a schema")
        sent = {
            **question.options,
            "model": target.live.engine_name,
            "input": question.prompts,
            "cache_salt": cache_salt(salt_secret, target.route.tenant, policy.digest, target.live.epoch),
        }
        return Order(
            body=orjson.dumps(sent),
            engine_name=target.live.engine_name,
            public_name=target.route.model,
            choices=len(question.prompts),
            stream=False,
            include_usage=False,
            logprobs=False,
            policy=policy,
        )

    def whole(self, data: bytes, order: Order, answer_id: str) -> Rewritten:
        """Raises EngineFailed, EngineAnswerMismatch."""
        answer = engine.read_object(data)
        if "error" in answer:
            raise EngineAnswered
        engine.check_model(answer, order.engine_name)
        listed = answer.get("data")
        if not isinstance(listed, list):
            raise EngineFailed
        usage = read_usage(answer.get("usage"))
        public: dict[str, Any] = {
            "object": "list",
            "model": order.public_name,
            "data": [
                {"object": "embedding", "index": index, "embedding": _embedding(entry)}
                for index, entry in enumerate(engine.by_index(listed, order.choices))
            ],
        }
        if usage is not None:
            public["usage"] = {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt + usage.completion}
        return Rewritten(orjson.dumps(public), (), usage)

    def streamed(self, order: Order, answer_id: str) -> Streamed:
        raise EndpointUnsupported  # no question of this surface streams

    def refusal(self, error: RouterError) -> bytes:
        return problems.body(error)


def _embedding(entry: Mapping[str, Any]) -> list[float] | str:
    """Numbers, or their bytes in base64."""
    value = entry.get("embedding")
    if isinstance(value, str) or (isinstance(value, list) and all(type(n) in (float, int) for n in value)):
        return value
    raise EngineAnswered  # null where an adapter's numbers are no finite ones: its tenant's fault


def _format(name: str, value: Any) -> str:
    if value not in ("float", "base64"):
        raise InvalidRequest("encoding_format must be float or base64", param=name)
    return str(value)


FIELDS: Mapping[str, Check] = {
    "model": fields.model,
    "input": prompts,
    "encoding_format": _format,
    "dimensions": fields.integer(1, 1 << 16),
    # Accepted because clients send it; never passed on.
    "user": fields.text,
}
PASSED_ON = ("encoding_format", "dimensions")
IGNORED = ("user",)
