"""What is shown as learned is what training learns: the same rows, token by token."""

from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from trainer.datasets import Case, Conversation, Dataset, Labelled, Message, Pair, Steps, ToolCall
from trainer.errors import RowTooLong
from trainer.learning.rows import IGNORED, decode, make_rows
from trainer.learning.supervision import Supervised, supervision
from trainer.recipes.methods import (
    DpoSettings,
    GrpoSettings,
    KtoSettings,
    ProcessRewardModelSettings,
    RewardModelSettings,
    SftSettings,
)
from trainer.recipes.training import Training

ASKED = (Message("user", "Pay 5 € to Zoë 北京"),)


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path) -> Any:
    from trainer.learning.base import load_tokenizer

    return load_tokenizer(base_folder)


def shown(tokenizer: Any, row: Any, settings: Training) -> list[Supervised]:
    dataset = Dataset("train.jsonl", Digest.of(b""), (row,))
    return list(supervision(tokenizer, dataset, settings))


def signed(sample: Supervised, sign: str) -> str:
    return "".join(piece.text for piece in sample.pieces if piece.sign == sign)


def test_a_trajectory_learns_its_calls_and_its_last_words_only(tokenizer: Any) -> None:
    call = ToolCall("rate", '{"to":"USD"}')
    result = Message("tool", '{"rate":"1.1"}', name="rate")
    messages = (*ASKED, Message("assistant", "", (call,)), result, Message("assistant", "5.50 USD\n北"))
    row = Conversation(messages, 4, ({"type": "function", "function": {"name": "rate"}},))
    samples = shown(tokenizer, row, SftSettings(max_length=1024))
    first, second = samples
    assert (first.part, second.part, first.line) == ("answer 1 of 2", "answer 2 of 2", 4)
    assert '"to":"USD"' in signed(first, "+")
    assert signed(second, "+") == "5.50 USD\n北<|im_end|>"
    assert '{"rate":"1.1"}' in signed(second, "")
    for sample, ready in zip(
        samples, make_rows(tokenizer, tuple(row.examples()), max_length=1024, file="x"), strict=True
    ):
        learned = [token for token in ready.labels if token != IGNORED]
        assert (sample.tokens, sample.learned) == (len(ready.input_ids), len(learned))
        assert "".join(piece.text for piece in sample.pieces) == decode(tokenizer, ready.input_ids)
        assert signed(sample, "+") == decode(tokenizer, learned)


def test_characters_of_several_tokens_stay_whole(tokenizer: Any) -> None:
    (sample,) = shown(tokenizer, Conversation((*ASKED, Message("assistant", "🙂")), 1), SftSettings())
    assert all("\N{REPLACEMENT CHARACTER}" not in piece.text for piece in sample.pieces)
    assert any(piece.text == "🙂" and piece.tokens > 1 for piece in sample.pieces)


def test_of_a_pair_one_answer_is_learned_and_one_avoided(tokenizer: Any) -> None:
    chosen, rejected = shown(tokenizer, Pair(ASKED, "yes", "no", 2), DpoSettings())
    assert (signed(chosen, "+"), signed(chosen, "-")) == ("yes<|im_end|>", "")
    assert (signed(rejected, "+"), signed(rejected, "-")) == ("", "no<|im_end|>")
    assert signed(chosen, "") == signed(rejected, "")


def test_a_reward_model_learns_one_score_an_answer(tokenizer: Any) -> None:
    chosen, rejected = shown(tokenizer, Pair(ASKED, "yes", "no", 2), RewardModelSettings())
    assert (signed(chosen, "+"), chosen.learned) == ("<|im_end|>", 1)
    assert (signed(rejected, "-"), rejected.learned) == ("<|im_end|>", 1)


@pytest.mark.parametrize(("label", "sign"), [(True, "+"), (False, "-")])
def test_a_label_says_which_way(tokenizer: Any, label: bool, sign: str) -> None:
    (sample,) = shown(tokenizer, Labelled(ASKED, "yes", label, 1), KtoSettings())
    assert signed(sample, sign) == "yes<|im_end|>"


def test_steps_are_scored_behind_each(tokenizer: Any) -> None:
    row = Steps(ASKED, ("add one", "take two"), (True, False), 1)
    (sample,) = shown(tokenizer, row, ProcessRewardModelSettings())
    assert sample.learned == 2
    assert [piece.sign for piece in sample.pieces if piece.sign] == ["+", "-"]


def test_of_a_question_nothing_is_learned(tokenizer: Any) -> None:
    (sample,) = shown(tokenizer, Case("a", ASKED, 1, answer="yes"), GrpoSettings())
    assert (sample.part, sample.learned) == ("question", 0)
    assert sample.tokens > 0


def test_what_training_refuses_is_not_shown(tokenizer: Any) -> None:
    with pytest.raises(RowTooLong):
        shown(
            tokenizer, Conversation((*ASKED, Message("assistant", "x" * 100)), 1), SftSettings(max_length=8)
        )
