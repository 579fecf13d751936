"""constrain: a completion under a policy.

A policy's system prompt and examples are turns of a conversation, and raw text has none: such a policy
refuses this endpoint, because a client could else walk around them.
"""

from typing import Any

import orjson

from router.errors import EndpointNotAllowed
from router.policies import CompiledPolicy
from router.resolution import Target
from router.surfaces.bounds import sampling
from router.surfaces.response_format import response_format
from router.surfaces.salt import cache_salt
from router.surfaces.surface import Order, Question


def constrain(question: Question, target: Target, salt_secret: bytes) -> Order:
    """Raises EndpointNotAllowed and what a chat's order raises."""
    policy = target.policy
    refuse_conversation(policy)
    prompts = question.prompts
    fields: dict[str, Any] = {
        **question.options,
        "model": target.live.engine_name,
        "prompt": prompts[0] if len(prompts) == 1 else prompts,
        "stream": question.stream,
        "n": question.choices,
        "cache_salt": cache_salt(salt_secret, target.route.tenant, policy.digest, target.live.epoch),
        **sampling(question, policy),
    }
    form = response_format(question, policy)
    if form.engine is not None:
        fields["response_format"] = form.engine
    if question.stream:
        fields["stream_options"] = {"include_usage": True}
    return Order(
        body=orjson.dumps(fields),
        engine_name=target.live.engine_name,
        public_name=target.route.model,
        choices=question.choices * len(prompts),
        stream=question.stream,
        include_usage=question.include_usage,
        logprobs=question.logprobs,
        policy=policy,
        own=form.own,
    )


def refuse_conversation(policy: CompiledPolicy) -> None:
    """Raises EndpointNotAllowed for a policy that says what comes before a client's words."""
    if policy.opening:
        raise EndpointNotAllowed("a system prompt or example turns")
