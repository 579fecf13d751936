"""One example as token ids and labels, rendered by the base's own chat template.

TRL would do this too, and go wrong silently in six known ways: it drops rows whose prompt fills
``max_length``, cuts answers off before their end of turn, drops the end of a prompt that is not a token
prefix, supervises the line break after the end of turn, and only warns when the end of turn is not
supervised. So the rows are made here, where each of these is an error that names its line, and given to TRL
ready-made.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from trainer.datasets import Example, Message, Tools
from trainer.errors import EndOfTurnMissing, RowTooLong, SpecialTokenInText, TemplateBroken, TrainingRefused

IGNORED: Final = -100
"""The label of a token that is not learned (PyTorch's convention)."""


@dataclass(frozen=True, slots=True)
class Row:
    """``input_ids`` end with the end of turn; everything from ``prompt`` tokens on is learned."""

    input_ids: tuple[int, ...]
    prompt: int
    line: int

    @property
    def labels(self) -> tuple[int, ...]:
        return (IGNORED,) * self.prompt + self.input_ids[self.prompt :]


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    tools: Tools = (),
    add_generation_prompt: bool = False,
) -> tuple[int, ...]:
    """What serving feeds the model for ``messages``, as token ids."""
    ids = tokenizer.apply_chat_template(
        [message.as_dict() for message in messages],
        tools=list(tools) or None,
        add_generation_prompt=add_generation_prompt,
        tokenize=True,
        return_dict=False,
    )
    return tuple(ids)


def make_rows(tokenizer: Any, examples: Sequence[Example], *, max_length: int, file: str) -> tuple[Row, ...]:
    """All examples as rows, in order. ``file`` is how errors call the file the examples come from."""
    if tokenizer.chat_template is None:
        raise TemplateBroken("this base has no chat template", hint="add one to its tokenizer_config.json")
    if tokenizer.eos_token_id is None:
        raise EndOfTurnMissing("this base's tokenizer has no end-of-text token")
    if not examples:
        raise TrainingRefused(f"{file} has nothing to learn")
    rows = tuple(_row(tokenizer, example, file) for example in examples)
    longest = [row for row in rows if len(row.input_ids) > max_length]
    if longest:
        first = longest[0]
        raise RowTooLong(
            f"{file}:{first.line} has {len(first.input_ids)} tokens, more than the {max_length} allowed"
            + (f" (and {len(longest) - 1} more rows)" if len(longest) > 1 else ""),
            lines=tuple(row.line for row in longest),
            longest=max(len(row.input_ids) for row in longest),
        )
    return rows


def _row(tokenizer: Any, example: Example, file: str) -> Row:
    where = f"{file}:{example.line}"
    for message in (*example.prompt, example.answer):
        refuse_special_tokens(tokenizer, message, where)
    prompt = render(tokenizer, example.prompt, tools=example.tools, add_generation_prompt=True)
    whole = render(tokenizer, (*example.prompt, example.answer), tools=example.tools)
    if whole[: len(prompt)] != prompt:
        raise TemplateBroken(f"{where}: the prompt is not a token prefix of the whole conversation")
    said = whole[len(prompt) :]
    if tokenizer.eos_token_id not in said:
        raise EndOfTurnMissing(
            f"{where}: no {tokenizer.eos_token!r} follows the answer, so the model would never learn to stop"
        )
    end = said.index(tokenizer.eos_token_id)
    if not says(text := decode(tokenizer, said[:end]), example.answer):
        shown = example.answer.content or example.answer.tool_calls[0].name
        raise TemplateBroken(
            f"{where}: the chat template changes the answer ({shown[:40]!r} became {text[:40]!r})"
        )
    # What the template puts after the end of turn (a line break) is never generated: not learned, not fed.
    return Row(input_ids=whole[: len(prompt) + end + 1], prompt=len(prompt), line=example.line)


def says(text: str, answer: Message) -> bool:
    """Whether ``text`` is the answer. How a template writes tool calls is its own affair, but every word of
    name and arguments must be in it."""
    if not answer.tool_calls:
        return text == answer.content
    return answer.content in text and all(
        word in text
        for call in answer.tool_calls
        for word in (call.name, *_words(json.loads(call.arguments)))
    )


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _words(item)
    elif isinstance(value, list):
        for item in value:
            yield from _words(item)
    elif isinstance(value, str):
        yield json.dumps(value, ensure_ascii=False)[1:-1]
    else:
        yield json.dumps(value)


def refuse_special_tokens(tokenizer: Any, message: Message, where: str) -> None:
    """Raise SpecialTokenInText: a control token inside a message would forge a turn."""
    texts = (message.content, *(call.arguments for call in message.tool_calls))
    forged = next((token for token in tokenizer.all_special_tokens for text in texts if token in text), None)
    if forged is not None:
        raise SpecialTokenInText(f"{where}: a {message.role} message contains {forged!r}", token=forged)


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Exactly the text, control tokens included and no spaces tidied up."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
