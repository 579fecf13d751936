"""constrain: the sampling that a policy allows.

Bounds refuse instead of clamping: a client that asked for 4,000 tokens and silently got 256 would take the
cut answer for the whole one.
"""

from typing import Any

from router.errors import InvalidRequest, SamplingOutOfBounds
from router.policies import CompiledPolicy
from router.surfaces.surface import Question


def sampling(question: Question, policy: CompiledPolicy) -> dict[str, Any]:
    """Raises SamplingOutOfBounds, InvalidRequest."""
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
