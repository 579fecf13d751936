"""parse: the bytes a client sent become a Question, or are refused by name.

An allow-list, because vLLM has fields that kill an engine (``prompt_logprobs`` beside another request),
read another adapter or defeat the cache isolation (``cache_salt``), and gains new ones with each release.
Every value that is passed on was checked here; strings are the only thing that is opaque.
"""

from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequest, UnsupportedParameter
from router.surfaces import fields, tools
from router.surfaces.chat.messages import messages
from router.surfaces.fields import Check
from router.surfaces.surface import Question

MOST_TOKENS = 1 << 20
SEEDS = fields.integer(-(1 << 63), (1 << 63) - 1)
PENALTY = fields.number(-2, 2)
TEMPERATURE = fields.number(0, 2)
TOP_P = fields.number(0, 1, low_excluded=True)


def parse(body: bytes, *, most_choices: int) -> Question:
    """Raises InvalidRequest (``param`` names the field) or UnsupportedParameter."""
    given = fields.allowed(fields.decode(body), FIELDS)
    fields.required(given, "model", "messages")
    choices = given.get("n", 1)
    if choices > most_choices:
        raise InvalidRequest(f"n may be at most {most_choices}", param="n")
    stream = given.get("stream", False)
    if "stream_options" in given and not stream:
        raise InvalidRequest("stream_options needs stream: true", param="stream_options")
    if given.get("top_logprobs") and not given.get("logprobs"):
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    return Question(
        model=given["model"],
        messages=given["messages"],
        stream=stream,
        include_usage=given.get("stream_options", False),
        choices=choices,
        temperature=given.get("temperature"),
        max_tokens=_max_tokens(given),
        tokens_field="max_completion_tokens" if given.get("max_completion_tokens") else "max_tokens",
        logprobs=given.get("logprobs", False),
        response_format=given.get("response_format"),
        user=given.get("user"),
        options={}
        if _PASSED_ON.isdisjoint(given)
        else {name: given[name] for name in PASSED_ON if name in given},
        tools=tools.read_tools(given),
    )


def stream_options(name: str, value: Any) -> bool:
    options = fields.mapping(name, value)
    fields.known(name, options, ("include_usage",))
    return fields.boolean(f"{name}.include_usage", options.get("include_usage", False))


def _max_tokens(given: Mapping[str, Any]) -> int | None:
    """The new name and the old one mean the same; two different values mean a confused client."""
    new, old = given.get("max_completion_tokens"), given.get("max_tokens")
    if new is not None and old is not None and new != old:
        raise InvalidRequest("max_tokens and max_completion_tokens differ", param="max_tokens")
    found: int | None = new if new is not None else old
    return found


def _only_text(name: str, value: Any) -> None:
    if value != ["text"]:
        raise UnsupportedParameter("modalities may only be ['text']", param=name)


FIELDS: Mapping[str, Check] = {
    "model": fields.model,
    "messages": messages,
    "temperature": TEMPERATURE,
    "top_p": TOP_P,
    "max_tokens": fields.integer(1, MOST_TOKENS),
    "max_completion_tokens": fields.integer(1, MOST_TOKENS),
    "stream": fields.boolean,
    "stream_options": stream_options,
    "n": fields.integer(1, 128),
    "stop": fields.stop,
    "seed": SEEDS,
    "presence_penalty": PENALTY,
    "frequency_penalty": PENALTY,
    "logprobs": fields.boolean,
    "top_logprobs": fields.integer(0, 20),
    "response_format": fields.mapping,
    "tools": tools.functions,
    "tool_choice": tools.tool_choice,
    "parallel_tool_calls": fields.boolean,
    # Accepted because clients send them; never passed on.
    "user": fields.text,
    "metadata": fields.mapping,
    "store": fields.store,
    "modalities": _only_text,
    "service_tier": fields.service_tier,
    "prompt_cache_key": fields.text,
    "safety_identifier": fields.text,
}
PASSED_ON = ("top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "logprobs", "top_logprobs")
_PASSED_ON = frozenset(PASSED_ON)
IGNORED = (
    "user", "metadata", "store", "modalities", "service_tier", "prompt_cache_key", "safety_identifier",
)  # fmt: skip
