"""Writing the contract of a base: golden conversations as the token ids that training renders."""

from pathlib import Path
from typing import Any, Final

from registry.contract import Contract, GoldenConversation
from registry.digests import Digest
from trainer.errors import ContractBroken, TemplateBroken
from trainer.learning.base import load_tokenizer, surroundings

_CHAT_TEMPLATE: Final = "chat_template.jinja"

_GOLDEN: Final[tuple[tuple[tuple[str, str], ...], ...]] = (
    (("user", "Please transfer 840.50 EUR to Norvik Ltd today."),),
    (("system", "Answer as compact JSON."), ("user", "Pay 1250 USD."), ("assistant", '{"ok":true}')),
    (
        ("system", "You are a financial operations assistant."),
        ("user", "Is 999.99 under 1000?"),
        ("assistant", "yes"),
        ("user", "And 1000.00?"),
    ),
    (("user", "Zoë zahlt 5 € an 北京 — naïve? 🙂 e\u0301"),),
    (("user", "0123456789 00 1,234,567.89 -3e10 0x1F"),),
    (("user", " "), ("assistant", "\n"), ("user", ".")),
    (("user", "  two spaces, a\ttab,\n\na blank line and a trailing space "),),
    (("user", '{"a": [1, {"b": null}]}\n```json\n{}\n```'), ("assistant", "<tool_call>\n{}\n</tool_call>")),
)  # fmt: skip
"""What templates and tokenizers are known to differ on: system text, several turns, letters beyond ASCII,
digits, next to nothing, white space, JSON and tags. Each with and without the generation prompt."""


def make_contract(base: Digest, folder: Path) -> Contract:
    """The contract of the base in ``folder``, whose digest is ``base``. Raises TemplateBroken."""
    with surroundings(seed=0):
        tokenizer = load_tokenizer(folder)
        if tokenizer.chat_template is None:
            raise TemplateBroken("this base has no chat template")
        golden = [
            conversation
            for turns in _GOLDEN
            for conversation in _golden(tokenizer, tuple(_message(*turn) for turn in turns))
        ]
    if not golden:
        raise TemplateBroken("the chat template renders none of the golden conversations")
    return Contract(
        base=base,
        tokenizer=Digest.of_file(folder / "tokenizer.json"),
        chat_template=_template_digest(folder, tokenizer),
        golden=tuple(golden),
    )


def check_contract(registered: Contract, folder: Path) -> None:
    """Raise ContractBroken if the folder renders anything otherwise than the registered contract says.

    Renders what *that* contract holds, so a contract written by an older Tenon stays checkable.
    """
    with surroundings(seed=0):
        tokenizer = load_tokenizer(folder)
        if Digest.of_file(folder / "tokenizer.json") != registered.tokenizer:
            raise ContractBroken("the tokenizer is not the one in the base's contract")
        if _template_digest(folder, tokenizer) != registered.chat_template:
            raise ContractBroken("the chat template is not the one in the base's contract")
        for number, conversation in enumerate(registered.golden):
            ids = _ids(tokenizer, conversation.messages, generation=conversation.add_generation_prompt)
            if ids != conversation.token_ids:
                raise ContractBroken(
                    f"golden conversation {number} renders as other tokens than in the contract: "
                    "the libraries or files have changed",
                    conversation=number,
                )


def _message(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _golden(tokenizer: Any, messages: tuple[dict[str, Any], ...]) -> list[GoldenConversation]:
    """With and without the generation prompt; nothing for a base whose template refuses the conversation."""
    from jinja2.exceptions import TemplateError

    try:
        return [
            GoldenConversation(
                messages=messages,
                add_generation_prompt=generation,
                token_ids=_ids(tokenizer, messages, generation=generation),
            )
            for generation in (False, True)
        ]
    except TemplateError:
        # Some templates allow no system message: then serving cannot send one either.
        return []


def _ids(tokenizer: Any, messages: tuple[dict[str, Any], ...], *, generation: bool) -> tuple[int, ...]:
    return tuple(
        tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=generation, tokenize=True, return_dict=False
        )
    )


def _template_digest(folder: Path, tokenizer: Any) -> Digest:
    """As ``registry.bases.describe`` takes it: of the file where there is one, else of the text."""
    path = folder / _CHAT_TEMPLATE
    if path.is_file():
        return Digest.of_file(path)
    return Digest.of(str(tokenizer.chat_template).encode("utf-8", "surrogatepass"))
