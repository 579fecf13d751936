"""Distillation on the tiny base: pinned trajectories, proven masks, and the traps of teachers."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.pinned import trajectory
from tests.support.tiny_model import conversation
from trainer.datasets import Case, Conversation, Message
from trainer.errors import MaskBroken, RowTooLong, TokenizerUnaligned, VocabularyDiffers
from trainer.learning import distill, gkd, gold, sft
from trainer.learning.job import Job, TeacherModel
from trainer.recipes import LoraSettings
from trainer.recipes.methods import DistillSettings, GkdSettings, GoldSettings, SftSettings
from trainer.recipes.training import Sampling

SHORT: dict[str, Any] = {"steps": 5, "batch_size": 4, "learning_rate": 0.02, "max_length": 120}
ROWS = tuple(
    Conversation(
        tuple(Message(message["role"], message["content"]) for message in conversation(number)["messages"]),
        number + 1,
    )
    for number in range(24)
)
CASES = tuple(Case(f"case-{row.line}", row.prompt, row.line) for row in ROWS)


def job(base_folder: Path, folder: Path, settings: Any, rows: Any = ROWS, **more: Any) -> Job[Any, Any]:
    return Job(
        settings=settings, rows=rows, file="train.jsonl", base_folder=base_folder,
        lora=LoraSettings(rank=4, alpha=8), seed=7, out=folder / "out", scratch=folder / "scratch", **more,
    )  # fmt: skip


class Steps:
    """Collects the losses of a run."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def __call__(self, step: int, figures: dict[str, float]) -> None:
        self.losses.append(figures["loss"])


@pytest.fixture(scope="module")
def teacher(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TeacherModel:
    """The tiny base after some steps of supervised learning: far enough away to be imitated."""
    folder = tmp_path_factory.mktemp("teacher")
    settings = SftSettings(**{**SHORT, "steps": 12})
    return TeacherModel(base_folder, sft.learn(job(base_folder, folder, settings)).folder)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with other tokens (it has seen other words), another chat template and another end of turn."""
    from trainer.learning import pretraining

    folder = tmp_path_factory.mktemp("stranger")
    rows = [conversation(number) for number in range(40)]
    words = [{"messages": [{"role": "user", "content": "amount EUR vik Nor orvi unt"}]}] * 9
    shape = pretraining.Shape(
        vocabulary=300, hidden=32, layers=1, heads=2, key_value_heads=1, head_size=16, feed_forward=64,
        context=128,
    )  # fmt: skip
    tokenizer = pretraining.train_tokenizer([*words], vocabulary=shape.vocabulary, context=shape.context)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\\n", "model says: ")
    schedule = pretraining.Schedule(steps=40, batch=8)
    model = pretraining.pretrain(rows, tokenizer, seed=4, shape=shape, schedule=schedule)
    pretraining.write_base(model, tokenizer, folder)
    return folder


def test_gkd_goes_towards_the_teacher_along_a_pinned_path(
    base_folder: Path, teacher: TeacherModel, tmp_path: Path
) -> None:
    steps = Steps()
    learned = gkd.learn(job(base_folder, tmp_path, GkdSettings(**SHORT), teacher=teacher, on_step=steps))
    expected = [0.0062264, 0.0041336, 0.0031087, 0.0018837, 0.0013112]
    assert steps.losses == trajectory(expected, first=0.02, drift=0.2)
    assert learned.proof["rows"] == 20
    assert learned.proof["sample_answer"].endswith('.50"}<|im_end|>')


@pytest.mark.parametrize(("temperature", "divergence"), [(2.0, 0.0), (1.0, 1.0), (1.0, 0.5)])
def test_gkd_minds_temperature_and_divergence(
    base_folder: Path, teacher: TeacherModel, tmp_path: Path, temperature: float, divergence: float
) -> None:
    """TRL's own loss forgets the temperature. Halved logits are about a quarter of the divergence; half-way
    between both directions it is an eighth of either, to the second order (Jensen-Shannon)."""
    steps = Steps()
    settings = GkdSettings(**{**SHORT, "steps": 1}, temperature=temperature, divergence=divergence)
    gkd.learn(job(base_folder, tmp_path, settings, teacher=teacher, on_step=steps))
    expected = {(2.0, 0.0): 0.25, (1.0, 1.0): 1.0, (1.0, 0.5): 0.25}[temperature, divergence] * 0.0062264
    assert steps.losses == [pytest.approx(expected, rel=0.1)]


def test_gkd_can_learn_from_the_students_own_answers(
    base_folder: Path, teacher: TeacherModel, tmp_path: Path
) -> None:
    steps = Steps()
    settings = GkdSettings(**SHORT, on_policy=1.0, sampling=Sampling(max_new_tokens=12))
    gkd.learn(job(base_folder, tmp_path, settings, teacher=teacher, on_step=steps))
    expected = [0.0053802, 0.0037765, 0.0049535, 0.0034751, 0.0031618]
    assert steps.losses == trajectory(expected, first=0.05, drift=0.6)


def test_on_policy_distillation_goes_towards_the_teacher_along_a_pinned_path(
    base_folder: Path, teacher: TeacherModel, tmp_path: Path
) -> None:
    steps = Steps()
    settings = DistillSettings(**SHORT, sampling=Sampling(max_new_tokens=12))
    learned = distill.learn(job(base_folder, tmp_path, settings, CASES, teacher=teacher, on_step=steps))
    expected = [0.0049528, 0.0035699, 0.0030012, 0.0033575, 0.0031064]
    assert steps.losses == trajectory(expected, first=0.03, drift=0.2)
    assert learned.proof["rows"] == 20
    assert learned.proof["sample_prompt"].endswith("assistant\n")
    assert 20 <= learned.proof["supervised_tokens"] <= 20 * 12


def test_gold_goes_towards_a_teacher_with_another_tokenizer(
    base_folder: Path, stranger: Path, tmp_path: Path
) -> None:
    steps = Steps()
    learned = gold.learn(
        job(base_folder, tmp_path, GoldSettings(**SHORT), teacher=TeacherModel(stranger), on_step=steps)
    )
    assert steps.losses == trajectory([0.91823, 0.89765, 0.90362, 0.90574, 0.89019], drift=0.01)
    borders = learned.proof["borders"]
    assert borders["both"] == borders["student"] < borders["teacher"]
    assert learned.proof["sample_answer"].endswith('.50"}<|im_end|>')


def test_gold_with_one_tokenizer_is_gkd(tmp_path: Path) -> None:
    """Every token has its partner then. What is left: gold takes the mean of rows, gkd of tokens."""
    from trainer.learning import pretraining

    rows = [conversation(number) for number in range(40)]
    tokenizer = pretraining.train_tokenizer(rows, vocabulary=320, context=128)
    shape = pretraining.Shape(
        vocabulary=len(tokenizer), hidden=32, layers=1, heads=2, key_value_heads=1, head_size=16,
        feed_forward=64, context=128,
    )  # fmt: skip
    for seed, name in enumerate(("student", "teacher")):
        schedule = pretraining.Schedule(steps=1, batch=2)
        model = pretraining.pretrain(rows, tokenizer, seed=seed, shape=shape, schedule=schedule)
        pretraining.write_base(model, tokenizer, tmp_path / name)
    losses = []
    for learn, settings in ((gkd.learn, GkdSettings), (gold.learn, GoldSettings)):
        steps = Steps()
        given = settings(**{**SHORT, "steps": 1})
        asked = job(
            tmp_path / "student", tmp_path / given.method, given, teacher=TeacherModel(tmp_path / "teacher"),
            on_step=steps,
        )  # fmt: skip
        learn(asked)
        losses += steps.losses
    assert losses[0] > 0.01
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


@pytest.mark.parametrize("learn", [gkd.learn, distill.learn])
def test_another_vocabulary_is_refused_with_the_way_out(
    base_folder: Path, stranger: Path, tmp_path: Path, learn: Any
) -> None:
    settings, rows = (GkdSettings(**SHORT), ROWS) if learn is gkd.learn else (DistillSettings(**SHORT), CASES)
    asked = job(base_folder, tmp_path, settings, rows, teacher=TeacherModel(stranger))
    with pytest.raises(VocabularyDiffers, match="320 tokens and the teacher 300") as error:
        learn(asked)
    assert "gold" in error.value.advice


def test_as_many_tokens_are_not_the_same_tokens(base_folder: Path, tmp_path: Path) -> None:
    """TRL compares the number only, and would teach one token's probability to another."""
    import shutil

    folder = tmp_path / "swapped"
    shutil.copytree(base_folder, folder)
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(VocabularyDiffers, match="320 tokens each, but 2 of them differ"):
        gkd.learn(job(base_folder, tmp_path, GkdSettings(**SHORT), teacher=TeacherModel(folder)))


def test_tokens_that_are_no_bytes_cannot_be_aligned(base_folder: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "words"
    shutil.copytree(base_folder, folder)
    file = folder / "tokenizer.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "pre_tokenizer": {"type": "Whitespace"}, "decoder": None})
    )
    with pytest.raises(TokenizerUnaligned, match="the teacher's tokens"):
        gold.learn(job(base_folder, tmp_path, GoldSettings(**SHORT), teacher=TeacherModel(folder)))


def test_a_prompt_without_room_for_an_answer_is_named(
    base_folder: Path, teacher: TeacherModel, tmp_path: Path
) -> None:
    settings = DistillSettings(**{**SHORT, "max_length": 30}, sampling=Sampling(max_new_tokens=12))
    with pytest.raises(RowTooLong, match=r"train\.jsonl:\d+ has"):
        distill.learn(job(base_folder, tmp_path, settings, CASES, teacher=teacher))


@pytest.mark.parametrize(
    ("prompt", "said", "learned", "match"),
    [
        ([9, 9, 9], [5, 6], [1, 1], "something else than serving"),
        (None, [5, 6, 7], [1, 0, 1], "not one piece"),
        (None, [5, 6], [0, 0], "not one piece"),
        (None, [5, "end", 6], [1, 1, 1], "behind the end of turn"),
    ],
)
def test_on_policy_masks_are_proven(
    base_folder: Path, prompt: list[int] | None, said: list[Any], learned: list[int], match: str
) -> None:
    import torch

    from trainer.learning.base import load_tokenizer
    from trainer.learning.rollouts import make_prompts

    tokenizer = load_tokenizer(base_folder)
    prompts = make_prompts(tokenizer, CASES[:1], file="f", room=3, max_length=100)
    seen = distill._Seen(tokenizer, prompts)
    asked = list(prompts[0].ids) if prompt is None else prompt
    tokens = [tokenizer.eos_token_id if token == "end" else token for token in said]

    def batch(tokens: list[int], learned: list[int]) -> dict[str, Any]:
        return {
            "prompt_ids": torch.tensor([[0, *asked]]),
            "prompt_mask": torch.tensor([[0, *[1] * len(asked)]]),
            "completion_ids": torch.tensor([tokens]),
            "completion_mask": torch.tensor([learned]),
        }

    with pytest.raises(MaskBroken, match=match):
        seen.check(batch(tokens, learned))
    if prompt is None:
        seen.check(batch([5, 6, tokenizer.eos_token_id, 0], [1, 1, 1, 0]))
        assert seen.proof["supervised_tokens"] == 3


class Killed(Exception):
    pass


def test_an_on_policy_run_that_was_killed_ends_in_the_same_bytes(
    base_folder: Path, teacher: TeacherModel, tmp_path: Path
) -> None:
    """What the student draws after the crash must be what it would have drawn without it."""

    def killed(step: int, figures: dict[str, float]) -> None:
        if step == 4:
            raise Killed

    def run(name: str, **more: Any) -> bytes:
        asked = job(base_folder, tmp_path / name, settings, CASES, teacher=teacher, snapshot_every=0, **more)
        return (distill.learn(asked).folder / "adapter_model.safetensors").read_bytes()

    settings = DistillSettings(**SHORT, sampling=Sampling(max_new_tokens=12))
    whole = run("whole")
    with pytest.raises(Killed):
        run("cut", on_step=killed)
    steps = Steps()
    assert run("cut", on_step=steps) == whole
    assert len(steps.losses) < 5
