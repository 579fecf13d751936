"""Holding out: a row's side depends on what it asks and on nothing else."""

from hypothesis import given
from hypothesis import strategies as st

from registry.digests import Digest
from trainer.datasets import Conversation, Dataset, Message
from trainer.datasets.split import as_cases, split
from trainer.errors import DataInvalid

questions = st.text(alphabet="abc é北", min_size=1, max_size=4).filter(lambda text: text.strip() != "")
shares = st.sampled_from([0.1, 0.3, 0.5, 0.9])


def dataset(asked: list[str]) -> Dataset[Conversation]:
    rows = tuple(
        Conversation((Message("user", text), Message("assistant", f"answer {line}")), line)
        for line, text in enumerate(asked, start=1)
    )
    return Dataset("train.jsonl", Digest.of(repr(asked).encode()), rows)


def sides(asked: list[str], share: float) -> tuple[list[int], list[int]]:
    try:
        kept, held = split(dataset(asked), share=share)
    except DataInvalid:
        return [], []
    return [row.line for row in kept.rows], [row.line for row in held.rows]


@given(st.lists(questions, min_size=2, max_size=30), shares)
def test_every_row_is_on_one_side_in_its_order(asked: list[str], share: float) -> None:
    kept, held = sides(asked, share)
    if kept:
        assert sorted(kept + held) == list(range(1, len(asked) + 1))
        assert (kept, held) == (sorted(kept), sorted(held))


@given(st.lists(questions, min_size=2, max_size=20), questions, st.data(), shares)
def test_another_row_moves_none(asked: list[str], more: str, data: st.DataObject, share: float) -> None:
    place = data.draw(st.integers(0, len(asked)))
    before, _ = sides(asked, share)
    after, _ = sides([*asked[:place], more, *asked[place:]], share)
    if before and after:
        texts = {text for line, text in enumerate(asked, start=1) if line in before}
        longer = [*asked[:place], more, *asked[place:]]
        assert texts == {text for line, text in enumerate(longer, start=1) if line in after} - (
            {more} - set(asked)
        )


@given(st.lists(questions, min_size=2, max_size=30), shares)
def test_the_same_question_stays_together(asked: list[str], share: float) -> None:
    spelled = [*asked, *(f"  {text.upper()} " for text in asked)]
    kept, held = sides(spelled, share)
    count = len(asked)
    for side in (kept, held):
        assert {line + count for line in side if line <= count} == {line for line in side if line > count}


def test_about_the_share_is_held_out_and_asked_as_cases() -> None:
    kept, held = split(dataset([f"question {number}" for number in range(4000)]), share=0.1)
    assert 330 < len(held.rows) < 470
    cases = as_cases(held)
    assert [case.answer for case in cases.rows] == [f"answer {row.line}" for row in held.rows]
    assert cases.digest == held.digest != kept.digest
