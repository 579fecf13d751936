"""parse: OpenAI's legacy completions, from an allow-list as in ``router.surfaces.chat.question``.

``echo`` is refused: with ``logprobs`` it makes vLLM compute log-probabilities of the prompt, and one such
request beside another kills a LoRA engine.
"""

from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequest, UnsupportedParameter
from router.surfaces import fields
from router.surfaces.chat import question as chat
from router.surfaces.fields import Check
from router.surfaces.surface import Question

MOST_TOKEN_ID = 1 << 31


def parse(body: bytes, *, most_choices: int) -> Question:
    """Raises InvalidRequest, UnsupportedParameter."""
    given = fields.allowed(fields.decode(body), FIELDS)
    fields.required(given, "model", "prompt")
    choices = given.get("n", 1)
    if choices * len(given["prompt"]) > most_choices:
        raise InvalidRequest(f"n times the number of prompts may be at most {most_choices}", param="n")
    stream = given.get("stream", False)
    if "stream_options" in given and not stream:
        raise InvalidRequest("stream_options needs stream: true", param="stream_options")
    return Question(
        model=given["model"],
        prompts=given["prompt"],
        stream=stream,
        include_usage=given.get("stream_options", False),
        choices=choices,
        temperature=given.get("temperature"),
        max_tokens=given.get("max_tokens"),
        logprobs="logprobs" in given,
        response_format=given.get("response_format"),
        user=given.get("user"),
        options={name: given[name] for name in PASSED_ON if name in given},
    )


def prompts(name: str, value: Any) -> list[str | list[int]]:
    """A text, a list of token ids, or a list of either."""
    if _ids(value):
        return [value]
    many = value if isinstance(value, list) and value else [value]
    return [_prompt(name if many[0] is value else f"{name}[{index}]", one) for index, one in enumerate(many)]


def _prompt(at: str, value: Any) -> str | list[int]:
    if _ids(value):
        found: list[int] = value
        return found
    if isinstance(value, list):
        raise InvalidRequest(f"{at} must be text or a list of token ids", param=at)
    text = fields.text(at, value)
    if not text:
        raise InvalidRequest(f"{at} is empty", param=at)
    return text


def _ids(value: Any) -> bool:
    """Three passes in C cost a third of one in Python, and there may be 300,000."""
    if not isinstance(value, list) or not value or type(value[0]) is not int:
        return False
    return set(map(type, value)) == {int} and min(value) >= 0 and max(value) < MOST_TOKEN_ID


def _refused(why: str, *, unless: Any) -> Check:
    def check(name: str, value: Any) -> None:
        if value != unless or type(value) is not type(unless):
            raise UnsupportedParameter(why, param=name)

    return check


FIELDS: Mapping[str, Check] = {
    "model": fields.model,
    "prompt": prompts,
    "temperature": chat.TEMPERATURE,
    "top_p": chat.TOP_P,
    "max_tokens": fields.integer(1, chat.MOST_TOKENS),
    "stream": fields.boolean,
    "stream_options": chat.stream_options,
    "n": fields.integer(1, 128),
    "stop": fields.stop,
    "seed": chat.SEEDS,
    "presence_penalty": chat.PENALTY,
    "frequency_penalty": chat.PENALTY,
    "logprobs": fields.integer(0, 20),
    "response_format": fields.mapping,
    # Accepted because clients send them; never passed on.
    "user": fields.text,
    "echo": _refused("echo is not supported: the prompt is what you sent", unless=False),
    "best_of": _refused("best_of is not supported; ask for n answers and choose", unless=1),
}
PASSED_ON = ("top_p", "stop", "seed", "presence_penalty", "frequency_penalty", "logprobs")
IGNORED = ("user", "echo", "best_of")
