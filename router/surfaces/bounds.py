"""constrain: the sampling that a policy allows.

Bounds refuse instead of clamping: a client that asked for 4,000 tokens and silently got 256 would take the
cut answer for the whole one.
"""

from collections.abc import Mapping
from typing import Any

from registry.models import Sampling
from router.errors import InvalidRequest, SamplingOutOfBounds
from router.policies import CompiledPolicy
from router.surfaces.surface import Question


def sampling(question: Question, policy: CompiledPolicy) -> Mapping[str, Any]:
    """Raises SamplingOutOfBounds, InvalidRequest."""
    bounds, choices = policy.policy.sampling, question.choices
    # Looked at only if the policy bounds them: the usual request pays for none of it.
    if policy.bounds_options and question.options:
        _check(question.options, bounds)
    if choices > bounds.max_choices:
        raise SamplingOutOfBounds(f"the policy allows an n of at most {bounds.max_choices}", param="n")
    if question.max_tokens is None and question.temperature is None and choices == 1:
        if bounds.top_p is None or "top_p" not in question.options:
            return policy.sampling
        return {name: value for name, value in policy.sampling.items() if name != "top_p"}
    tokens = bounds.max_tokens if question.max_tokens is None else question.max_tokens
    if tokens > bounds.max_tokens:
        raise SamplingOutOfBounds(
            f"the policy allows at most {bounds.max_tokens} tokens an answer", param=question.tokens_field
        )
    # The default obeys the bound too, should a policy of before contradict itself.
    temperature = min(bounds.temperature, bounds.max_temperature)
    if question.temperature is not None:
        temperature = question.temperature
    if not bounds.min_temperature <= temperature <= bounds.max_temperature:
        raise SamplingOutOfBounds(_allowed("temperature", bounds), param="temperature")
    if choices > 1 and temperature < 1e-5:  # vLLM's bound for greedy decoding
        raise InvalidRequest("n above 1 needs a temperature above 0: greedy answers are all equal", param="n")
    fields = {"max_tokens": tokens, "temperature": temperature}
    if bounds.top_p is not None and "top_p" not in question.options:
        fields["top_p"] = bounds.top_p
    return fields


def _check(options: Mapping[str, Any], bounds: Sampling) -> None:
    top_p = options.get("top_p")
    if top_p is not None and not bounds.min_top_p <= top_p <= bounds.max_top_p:
        raise SamplingOutOfBounds(_allowed("top_p", bounds), param="top_p")
    for name in ("presence_penalty", "frequency_penalty"):
        if abs(options.get(name, 0)) > bounds.max_penalty:
            raise SamplingOutOfBounds(
                f"the policy allows a {name} from {-bounds.max_penalty:g} to {bounds.max_penalty:g}",
                param=name,
            )
    asked = options.get("logprobs")
    if asked is None or asked is False:
        return
    if not bounds.logprobs:
        raise SamplingOutOfBounds("the policy allows no logprobs", param="logprobs")
    # Chat says true and a number apart; completions say the number.
    name = "top_logprobs" if asked is True else "logprobs"
    if options.get(name, 0) > bounds.max_top_logprobs:
        raise SamplingOutOfBounds(
            f"the policy allows a {name} of at most {bounds.max_top_logprobs}", param=name
        )


def _allowed(name: str, bounds: Sampling) -> str:
    low, high = getattr(bounds, f"min_{name}"), getattr(bounds, f"max_{name}")
    if low == 0:
        return f"the policy allows a {name} of at most {high:g}"
    return f"the policy allows a {name} from {low:g} to {high:g}"
