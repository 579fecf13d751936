"""Which parts of a policy cannot all be kept: found when it is published, not on a tenant's request."""

from collections.abc import Iterator

from registry import canonical
from registry.errors import InvalidDocument, PolicyContradicts
from registry.models import ANY_TOOL, OnInvalid, Policy, Sampling
from registry.schemas.validator import Validator

MAX_PROMPT_BYTES = 64 * 1024
"""Of the system prompt and the examples: they are sent, and paid for, with every request."""


def check_parts(policy: Policy) -> None:
    """Raises PolicyContradicts with all faults (``facts['faults']``) or returns."""
    faults = tuple(contradictions(policy))
    if faults:
        raise PolicyContradicts(f"the policy contradicts itself: {'; '.join(faults)}", faults=faults)


def contradictions(policy: Policy) -> Iterator[str]:
    yield from _of_sampling(policy.sampling)
    yield from _of_prompt(policy)
    if ANY_TOOL in policy.tools and len(policy.tools) > 1:
        yield "tools: '*' allows every name, so it stands alone"
    if len(set(policy.tools)) != len(policy.tools):
        yield "tools: a name stands twice"
    if policy.tools and policy.json_schema is not None:
        yield "tools: with a json_schema the decoder writes answers only, so no tool is ever called"
    # Under client_schema: narrow there may come a schema to validate against.
    if policy.on_invalid is OnInvalid.RETRY and not _validates(policy):
        yield "on_invalid: there is nothing to validate: no json_schema, no tools, no client's schema"


def _validates(policy: Policy) -> bool:
    return policy.json_schema is not None or bool(policy.tools) or policy.client_schema == "narrow"


def _of_sampling(sampling: Sampling) -> Iterator[str]:
    if not sampling.min_temperature <= sampling.temperature <= sampling.max_temperature:
        yield "sampling: temperature is not from min_temperature to max_temperature"
    if sampling.min_top_p > sampling.max_top_p:
        yield "sampling: min_top_p is above max_top_p"
    # Engines take 1 when none is named.
    used = 1.0 if sampling.top_p is None else sampling.top_p
    if not sampling.min_top_p <= used <= sampling.max_top_p:
        yield "sampling: top_p (1 if none is named) is not from min_top_p to max_top_p"


def _of_prompt(policy: Policy) -> Iterator[str]:
    texts = [policy.system_prompt or "", *(turn.content for turn in policy.prompt)]
    size = sum(len(text.encode()) for text in texts)
    if size > MAX_PROMPT_BYTES:
        yield f"prompt: {size} bytes with the system prompt, more than {MAX_PROMPT_BYTES}"
    roles = [turn.role for turn in policy.prompt]
    # Chat templates raise on other orders, and the client's own message comes next.
    if roles != ["user", "assistant"] * (len(roles) // 2):
        yield "prompt: must be pairs of user and assistant"
    schema = policy.answer_schema()
    if schema is None:
        return
    judge = Validator(schema)
    for number, turn in enumerate(policy.prompt):
        if turn.role == "assistant" and not _satisfies(judge, turn.content):
            yield f"prompt: example answer {number} does not satisfy the json_schema"


def _satisfies(judge: Validator, text: str) -> bool:
    try:
        return judge.accepts(canonical.decode(text))
    except InvalidDocument:
        return False
