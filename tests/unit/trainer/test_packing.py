"""Packed rows: nothing is lost, nothing is cut, and no row sees another."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets import Conversation, Message, examples
from trainer.learning.batches import epoch
from trainer.learning.job import Job
from trainer.learning.packing import pack
from trainer.learning.rows import IGNORED, make_rows
from trainer.learning.sft import learn
from trainer.recipes import LoraSettings, SftSettings

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 20), st.integers(0, 5))
def test_packs_keep_to_their_capacity_and_use_every_row_of_a_pass(
    lengths: list[int], packs: int, seed: int
) -> None:
    found = pack(lengths, packs=packs, capacity=40, seed=seed)
    assert len(found) == packs
    assert all(sum(lengths[row] for row in one) <= 40 for one in found)
    assert found == pack(lengths, packs=packs, capacity=40, seed=seed)
    used = [row for one in found for row in one]
    counts = [used.count(row) for row in range(len(lengths))]
    assert max(counts) - min(counts) <= 1


@given(LENGTHS)
def test_best_fit_is_within_its_known_bound(lengths: list[int]) -> None:
    """Best fit decreasing needs at most 11/9 of the fewest packs, plus one (Johnson 1973)."""
    whole = pack(lengths, packs=1, capacity=40, seed=1)
    assert whole[0]
    count = next(
        n
        for n in range(1, len(lengths) + 1)
        if len({row for one in pack(lengths, packs=n, capacity=40, seed=1) for row in one}) == len(lengths)
    )
    assert count <= 11 / 9 * max(1, math.ceil(2 * sum(lengths) / 40)) + 1


@given(st.lists(st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0]), min_size=1, max_size=8), st.integers(1, 12))
def test_a_weight_is_how_often_a_row_comes(weights: list[float], passes: int) -> None:
    seen = [row for number in range(passes) for row in epoch(len(weights), number, weights)]
    for row, weight in enumerate(weights):
        assert seen.count(row) == math.ceil(weight * passes)


def a_row(number: int) -> Conversation:
    answer = f'{{"amount":"{number}.50"}}' * (1 + number % 3)
    return Conversation((Message("user", f"Pay {number}.50 EUR"), Message("assistant", answer)), number + 1)


def test_the_loss_of_packed_rows_is_that_of_each_row_by_itself(base_folder: Path, tmp_path: Path) -> None:
    """TRL's ``wrapped`` packing lets rows attend to each other: 1.39 instead of 0.032. Here they must not."""
    import torch
    from torch.nn.functional import cross_entropy

    from trainer.learning.base import load_model, load_tokenizer

    rows = tuple(a_row(number) for number in range(12))
    ready = make_rows(load_tokenizer(base_folder), examples(rows), max_length=120, file="t")
    lengths = [len(row.input_ids) for row in ready]
    packs = 1
    while len({row for one in pack(lengths, packs=packs, capacity=120, seed=1) for row in one}) < 12:
        packs += 1
    seen: list[dict[str, float]] = []
    job: Job[Any, Any] = Job(
        settings=SftSettings(
            steps=1, batch_size=packs, packing="bfd", max_length=120, learning_rate=1e-9, schedule="constant"
        ),
        rows=rows, file="t", base_folder=base_folder, lora=LoraSettings(rank=4), seed=1,
        out=tmp_path / "raw", scratch=tmp_path / "scratch",
        on_step=lambda step, figures: seen.append(figures),
    )  # fmt: skip
    proof = learn(job).proof
    model = load_model(base_folder)
    total = learned = 0.0
    with torch.no_grad():
        for row in ready:
            logits = model(torch.tensor([row.input_ids])).logits[0, :-1]
            labels = torch.tensor(row.labels[1:])
            total += float(cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
            learned += int((labels != IGNORED).sum())
    assert seen[0]["loss"] == pytest.approx(total / learned, rel=1e-5)
    assert proof["rows"] == 12
    assert proof["supervised_tokens"] == learned
