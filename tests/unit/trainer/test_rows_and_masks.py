"""What is learned is exactly the answer and its end of turn, and the proof notices when it is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets import Example, Message
from trainer.errors import (
    EndOfTurnMissing,
    MaskBroken,
    RowTooLong,
    SpecialTokenInText,
    TemplateBroken,
    TrainingRefused,
)
from trainer.learning.batches import arrange
from trainer.learning.masks import MaskProof, prove
from trainer.learning.rows import IGNORED, Row, decode, make_rows


def said(text: str) -> Message:
    return Message("assistant", text)


EXAMPLES = tuple(
    Example((Message("user", f"Pay {number}.50 EUR to Norvik"),), said(f'{{"amount":"{number}.50"}}'), number)
    for number in (1, 22, 333)
)


@pytest.fixture
def tokenizer(base_folder: Path) -> Any:
    from trainer.learning.base import load_tokenizer

    return load_tokenizer(base_folder)


def rows_of(
    tokenizer: Any, examples: tuple[Example, ...] = EXAMPLES, *, max_length: int = 120
) -> tuple[Row, ...]:
    return make_rows(tokenizer, examples, max_length=max_length, file="train.jsonl")


def test_a_row_learns_the_answer_and_its_end_of_turn(tokenizer: Any) -> None:
    row = rows_of(tokenizer)[1]
    learned = [token for token in row.labels if token != IGNORED]
    assert decode(tokenizer, learned) == '{"amount":"22.50"}<|im_end|>'
    assert decode(tokenizer, row.input_ids[: row.prompt]).endswith("<|im_start|>assistant\n")
    assert len(row.labels) == len(row.input_ids)


def test_earlier_turns_are_prompt(tokenizer: Any) -> None:
    prompt = (
        Message("system", "Be short."),
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
    )
    (row,) = rows_of(tokenizer, (Example(prompt, said("d"), 1),))
    assert decode(tokenizer, [token for token in row.labels if token != IGNORED]) == "d<|im_end|>"


@pytest.mark.parametrize("answer", ["\n leading", "trailing \n", "  ", "Zoë 北京 🙂", "a\n\nb"])
def test_odd_answers_are_learned_unchanged(tokenizer: Any, answer: str) -> None:
    (row,) = rows_of(tokenizer, (Example((Message("user", "x"),), said(answer), 1),))
    assert decode(tokenizer, row.input_ids[row.prompt : -1]) == answer


def test_rows_over_the_length_are_an_error_that_names_the_line(tokenizer: Any) -> None:
    lengths = [len(row.input_ids) for row in rows_of(tokenizer)]
    assert len(rows_of(tokenizer, max_length=max(lengths))) == 3
    with pytest.raises(RowTooLong, match=rf"train\.jsonl:333 has {max(lengths)} tokens") as caught:
        rows_of(tokenizer, max_length=max(lengths) - 1)
    assert caught.value.facts["lines"] == (333,)


@pytest.mark.parametrize("place", ["prompt", "answer"])
def test_a_control_token_in_a_message_is_refused(tokenizer: Any, place: str) -> None:
    forged = "x<|im_end|>\n<|im_start|>system"
    example = Example((Message("user", forged if place == "prompt" else "x"),), said(forged), 7)
    with pytest.raises(
        SpecialTokenInText, match=r"train\.jsonl:7: a (user|assistant) message contains '<\|im_"
    ):
        rows_of(tokenizer, (example,))


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        # A generation prompt that the whole conversation does not have (a thinking tag, for instance).
        ("add_generation_prompt %}{{- '<|", "add_generation_prompt %}{{- '!<|", TemplateBroken),
        # An end of turn that is not the tokenizer's.
        ("'<|im_end|>' }}\n{%- endgeneration %}", "'</s>' }}\n{%- endgeneration %}", EndOfTurnMissing),
        # A template that tidies the answer.
        ("{{- message.content or '' }}", "{{- message.content | upper }}", TemplateBroken),
    ],
)  # fmt: skip
def test_broken_templates_are_refused(
    tokenizer: Any, old: str, new: str, error: type[TrainingRefused]
) -> None:
    assert old in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(old, new)
    with pytest.raises(error, match=r"train\.jsonl:1"):
        rows_of(tokenizer)


def test_a_base_without_template_or_end_of_turn_is_refused(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    with pytest.raises(EndOfTurnMissing):
        rows_of(tokenizer)
    tokenizer.chat_template = None
    with pytest.raises(TemplateBroken, match="no chat template"):
        rows_of(tokenizer)


def test_nothing_to_learn_is_refused(tokenizer: Any) -> None:
    with pytest.raises(TrainingRefused, match="nothing to learn"):
        rows_of(tokenizer, ())


def batch_of(rows: tuple[Row, ...]) -> dict[str, Any]:
    """As TRL's collator pads them: on the right."""
    import torch

    width = max(len(row.input_ids) for row in rows) + 2
    return {
        "input_ids": torch.tensor([[*row.input_ids, *[0] * (width - len(row.input_ids))] for row in rows]),
        "labels": torch.tensor([[*row.labels, *[IGNORED] * (width - len(row.labels))] for row in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(row.input_ids) + [0] * (width - len(row.input_ids)) for row in rows]
        ),
    }


def proof(tokenizer: Any, change: Callable[[dict[str, Any], int, int], None] | None = None) -> MaskProof:
    """The proof over all examples; ``change`` gets the batch, the second row's prompt length and length."""
    rows = rows_of(tokenizer)
    batch = batch_of(rows)
    if change is not None:
        change(batch, rows[1].prompt, len(rows[1].input_ids))
    return prove(tokenizer, EXAMPLES, [batch], order=[0, 1, 2])


def test_the_proof_counts_what_it_saw(tokenizer: Any) -> None:
    rows = rows_of(tokenizer)
    found = proof(tokenizer)
    assert found.rows == 3
    assert found.supervised_tokens == sum(len(row.input_ids) - row.prompt for row in rows)
    assert found.unsupervised_tokens == sum(row.prompt for row in rows)
    assert found.sample_answer == '{"amount":"1.50"}<|im_end|>'
    assert found.sample_prompt.endswith("<|im_start|>assistant\n")


def test_a_repeated_row_is_counted_once(tokenizer: Any) -> None:
    rows = rows_of(tokenizer)
    found = prove(tokenizer, EXAMPLES, [batch_of((rows[0], rows[0], rows[2]))], order=[0, 0, 2])
    assert found.rows == 2


def _learn_last_prompt_token(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["labels"][1, prompt - 1] = batch["input_ids"][1, prompt - 1]


def _learn_everything(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["labels"][1, :length] = batch["input_ids"][1, :length]


def _learn_nothing(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["labels"][1] = IGNORED


def _skip_end_of_turn(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["labels"][1, length - 1] = IGNORED


def _skip_first_answer_token(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["labels"][1, prompt] = IGNORED


def _hole(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["labels"][1, prompt + 2] = IGNORED


def _learn_padding(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["labels"][1, length] = 0


def _cut_off(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["attention_mask"][1, length - 1] = 0
    batch["labels"][1, length - 1] = IGNORED


def _other_label(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["labels"][1, prompt] += 1


def _other_answer(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["input_ids"][1, prompt + 1] += 1
    batch["labels"][1, prompt + 1] += 1


def _other_prompt(batch: dict[str, Any], prompt: int, length: int) -> None:
    batch["input_ids"][1, 2] += 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_learn_last_prompt_token, "not exactly the prompt"),
        (_learn_everything, "not exactly the prompt"),
        (_learn_nothing, "nothing is learned"),
        (_skip_end_of_turn, "not one piece at the end"),
        (_skip_first_answer_token, "not exactly the prompt"),
        (_hole, "not one piece"),
        (_learn_padding, "padding is learned"),
        (_cut_off, "end of turn is not learned"),
        (_other_label, "labels are not the tokens"),
        (_other_answer, "not exactly the answer"),
        (_other_prompt, "not exactly the prompt"),
    ],
)
def test_every_broken_mask_is_noticed(
    tokenizer: Any, change: Callable[[dict[str, Any], int, int], None], what: str
) -> None:
    with pytest.raises(MaskBroken, match=what) as caught:
        proof(tokenizer, change)
    assert caught.value.message.startswith("line 22")


def test_samples_that_are_missing_or_too_many_are_noticed(tokenizer: Any) -> None:
    rows = rows_of(tokenizer)
    with pytest.raises(MaskBroken, match="3 samples were arranged and 2 reached"):
        prove(tokenizer, EXAMPLES, [batch_of(rows[:2])], order=[0, 1, 2])
    with pytest.raises(MaskBroken, match="more samples"):
        prove(tokenizer, EXAMPLES, [batch_of(rows)], order=[0, 1])
    with pytest.raises(MaskBroken, match="prompt"):
        prove(tokenizer, EXAMPLES, [batch_of(rows)], order=[1, 0, 2])


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), steps=st.integers(1, 12),
    batch_size=st.integers(1, 9), seed=st.integers(0, 5),
)  # fmt: skip
def test_every_row_has_its_turn_before_any_has_another(
    lengths: list[int], steps: int, batch_size: int, seed: int
) -> None:
    order = arrange(lengths, steps=steps, batch_size=batch_size, seed=seed)
    assert len(order) == steps * batch_size
    counts = [order.count(row) for row in range(len(lengths))]
    assert max(counts) - min(counts) <= 1
    assert order == arrange(lengths, steps=steps, batch_size=batch_size, seed=seed)


def test_rows_of_one_length_share_a_batch_and_batches_are_mixed() -> None:
    lengths = [10] * 64 + [90] * 64
    order = arrange(lengths, steps=16, batch_size=8, seed=1)
    batches = [[lengths[row] for row in order[at : at + 8]] for at in range(0, 128, 8)]
    padding = sum(max(batch) * 8 - sum(batch) for batch in batches)
    assert padding < 0.2 * sum(lengths)  # without grouping it is 0.8
    kinds = [max(batch) for batch in batches]
    assert kinds not in (sorted(kinds), sorted(kinds, reverse=True))
    assert arrange(lengths, steps=16, batch_size=8, seed=2) != order
