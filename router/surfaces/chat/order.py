"""constrain: what the policy of a route makes of a question, ready for any engine."""

from typing import Any

import orjson

from router.errors import UnsupportedParameter
from router.resolution import Target
from router.surfaces.bounds import sampling
from router.surfaces.response_format import response_format
from router.surfaces.salt import cache_salt
from router.surfaces.surface import Order, Question
from router.surfaces.tools import permit


def constrain(question: Question, target: Target, salt_secret: bytes) -> Order:
    """Raises SamplingOutOfBounds, ResponseFormatConflict, UnsupportedParameter, InvalidRequest."""
    policy = target.policy
    fields: dict[str, Any] = {
        **question.options,
        "model": target.live.engine_name,
        "messages": [*policy.opening, *question.messages],
        "stream": question.stream,
        "n": question.choices,
        "cache_salt": cache_salt(salt_secret, target.route.tenant, policy.digest, target.live.epoch),
        **sampling(question, policy),
    }
    form = response_format(question, policy)
    if form.engine is not None:
        fields["response_format"] = policy.told if form.engine is policy.response_format else form.engine
    tools = question.tools
    if tools is not None and tools.mode == "none" and form.engine is not None:
        tools = None  # as a call could not be written, so the engine need not be told
    if tools is not None:
        permit(tools, policy)
        if form.engine is not None:
            raise UnsupportedParameter("tools cannot be combined with a JSON response_format", param="tools")
        fields |= tools.fields()
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
        own=form.own,
        tools=tools,
        echo=question.echo,
    )
