"""Learning from answers that verifiers accept: a teacher's (black_box) and the model's own (star)."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.endpoint_server import refusal, said, serving
from tests.support.tiny_model import conversation
from trainer.datasets import Case, Message
from trainer.errors import EndpointUnreachable, TooFewAccepted
from trainer.learning import black_box, star
from trainer.learning.job import Job, TeacherModel
from trainer.recipes import LoraSettings
from trainer.recipes.methods import BlackBoxSettings, StarSettings
from trainer.recipes.sources import Endpoint
from trainer.recipes.training import Sampling
from trainer.rewards import Reward, each

SHORT: dict[str, Any] = {"steps": 4, "batch_size": 4, "learning_rate": 0.02, "max_length": 120, "least": 4}
CASES = tuple(
    Case(f"case-{number}", (Message("user", f"Pay {number}.50 EUR to Norvik"),), number + 1)
    for number in range(16)
)
SHAPED = Reward(
    "shaped", 1.0, each(lambda answer: float(answer.text.startswith(('{"amount":"', '{"sum":"'))))
)
SUM = Reward("sum", 1.0, each(lambda answer: float(answer.text.startswith('{"sum"'))))
"""A house rule: half of what the base says breaks it."""


@pytest.fixture(scope="module")
def fluent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base that says amount or sum, as it comes, and ends its turns."""
    from trainer.learning import pretraining

    folder = tmp_path_factory.mktemp("fluent")
    rows = [conversation(number) for number in range(40)]
    rows += json.loads(json.dumps(rows).replace("amount", "sum"))
    shape = pretraining.Shape(
        vocabulary=320, hidden=32, layers=2, heads=2, key_value_heads=1, head_size=16, feed_forward=64,
        context=128,
    )  # fmt: skip
    tokenizer = pretraining.train_tokenizer(rows, vocabulary=shape.vocabulary, context=shape.context)
    schedule = pretraining.Schedule(steps=150, batch=16)
    model = pretraining.pretrain(rows, tokenizer, seed=3, shape=shape, schedule=schedule)
    pretraining.write_base(model, tokenizer, folder)
    return folder


class Heard:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.losses: list[float] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, step: int, figures: dict[str, float]) -> None:
        self.steps.append(step)
        self.losses.append(figures["loss"])


def job(
    base_folder: Path, folder: Path, settings: Any, heard: Heard | None = None, **more: Any
) -> Job[Any, Any]:
    heard = heard or Heard()
    given: dict[str, Any] = {"rewards": (SHAPED,), "on_step": heard.step, "note": heard.note, **more}
    return Job(
        settings=settings, rows=CASES, file="cases.jsonl", base_folder=base_folder,
        lora=LoraSettings(rank=4, alpha=8), seed=7, out=folder / "out", scratch=folder / "scratch", **given,
    )  # fmt: skip


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


class Killed(Exception):
    pass


STAR = StarSettings(**SHORT, rounds=2, samples=4, sampling=Sampling(max_new_tokens=16))


def test_each_round_is_drawn_from_the_one_before(fluent: Path, tmp_path: Path) -> None:
    """What it comes to on a real base, the recipe star shows; one this small only shows the way."""
    from trainer.answers_file import AnswersFile
    from trainer.learning.sampling import draw

    heard = Heard()
    learned = star.learn(job(fluent, tmp_path, STAR, heard, rewards=(SHAPED, SUM)))
    accepted = [one["accepted"] for one in learned.proof["rounds"]]
    first = tmp_path / "scratch" / "round-1" / "adapter"
    with AnswersFile(tmp_path / "again") as kept:
        again = draw(
            TeacherModel(fluent, first), CASES, file="cases.jsonl", sampling=STAR.sampling, samples=4, seed=8,
            max_length=120, kept=kept,
        )  # fmt: skip
    assert accepted[1] == sum(
        reply.finished and reply.text.startswith('{"sum"') for several in again for reply in several
    )
    assert (tmp_path / "scratch" / "round-2" / "answers.jsonl").read_text() == (
        tmp_path / "again"
    ).read_text()
    assert weights(first) != weights(learned.folder)
    assert heard.steps == list(range(1, 9))
    assert heard.notes[0] == "round 1: drawing 64 answers"
    assert learned.proof["sample_answer"].startswith('{"sum":"')
    assert learned.proof["answers"] == learned.proof["rounds"][-1]


def test_a_fresh_round_starts_from_the_start(fluent: Path, tmp_path: Path) -> None:
    """The first step of round 2 is that of an untrained adapter: its loss is the base's own."""
    losses = {}
    for fresh in (True, False):
        heard = Heard()
        settings = STAR.model_copy(update={"steps": 12, "fresh": fresh})
        star.learn(job(fluent, tmp_path / str(fresh), settings, heard))
        losses[fresh] = heard.losses
    assert losses[True][:12] == losses[False][:12]
    assert losses[True][12] != losses[False][12]


def test_self_training_that_was_killed_repeats_neither_answers_nor_rounds(
    fluent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.learning import sampling

    whole = star.learn(job(fluent, tmp_path / "whole", STAR))

    class Mortal(Heard):
        def step(self, step: int, figures: dict[str, float]) -> None:
            super().step(step, figures)
            if step == 6:
                raise Killed

    with pytest.raises(Killed):
        star.learn(job(fluent, tmp_path / "cut", STAR, Mortal()))

    def never(*args: Any) -> Any:
        raise AssertionError("drawn again")

    monkeypatch.setattr(sampling, "_draw", never)
    heard = Heard()
    learned = star.learn(job(fluent, tmp_path / "cut", STAR, heard))
    assert heard.steps == [5, 6, 7, 8]
    assert weights(learned.folder) == weights(whole.folder)
    assert learned.proof == whole.proof


def test_questions_that_are_always_right_can_be_left_out(fluent: Path, tmp_path: Path) -> None:
    def tally(**settings: Any) -> dict[str, int]:
        given = STAR.model_copy(update={"rounds": 1, "least": 1, **settings})
        proof = star.learn(job(fluent, tmp_path / str(len(settings)), given)).proof
        figures: dict[str, int] = proof["answers"]
        return figures

    everything, unsure = tally(), tally(pass_rate=(0.0, 0.9))
    assert unsure["accepted"] == everything["accepted"]
    assert unsure["learned"] < everything["learned"] == 16


def test_a_base_that_gets_nothing_right_stops_with_the_counts(fluent: Path, tmp_path: Path) -> None:
    never = Reward("never", 1.0, each(lambda answer: 0.0))
    with pytest.raises(
        TooFewAccepted, match=r"0 answers are left.*16 questions, 64 answers.*never 64"
    ) as error:
        star.learn(job(fluent, tmp_path, STAR, rewards=(never,)))
    assert error.value.facts["answered"] == 64
    assert not (tmp_path / "out").exists()


def test_a_local_teachers_accepted_answers_are_learned(
    base_folder: Path, fluent: Path, tmp_path: Path
) -> None:
    heard = Heard()
    settings = BlackBoxSettings(**SHORT, samples=2, sampling=Sampling(max_new_tokens=16))
    learned = black_box.learn(
        job(base_folder, tmp_path, settings, heard, teacher=TeacherModel(fluent), rewards=(SHAPED, SUM))
    )
    figures = learned.proof["teacher"]
    assert (figures["questions"], figures["answered"]) == (16, 32)
    assert figures["learned"] <= figures["accepted"] < 32
    assert figures["rejected"]["sum"] > 0
    assert heard.steps == [1, 2, 3, 4]
    assert learned.proof["sample_answer"].startswith('{"sum":"')


def test_an_endpoint_that_dies_halfway_costs_nothing_twice(base_folder: Path, tmp_path: Path) -> None:
    """Every third answer is not what the verifiers want; the server goes away after ten."""

    def answer(body: dict[str, Any], number: int) -> Any:
        amount = body["messages"][0]["content"].split()[1]
        wrong = int(float(amount)) % 3 == 0
        return said("sorry" if wrong else f'  {{"amount":"{amount}"}}\n')

    settings = BlackBoxSettings(**SHORT)
    with serving(answer) as server:

        def run(name: str) -> Any:
            endpoint = Endpoint(url=server.url, model="m", concurrency=2)
            return black_box.learn(
                job(base_folder, tmp_path / name, settings, teacher=TeacherModel(endpoint=endpoint))
            )

        whole = run("whole")
        assert len(server.seen) == 16
        server.seen.clear()
        server.reply = lambda body, number: (
            answer(body, number) if number <= 10 else refusal(429, retry_after="9999")
        )
        with pytest.raises(EndpointUnreachable, match="asks to wait 9999 s") as error:
            run("cut")
        assert "kept" in error.value.advice
        server.seen.clear()
        server.reply = answer
        learned = run("cut")
        assert len(server.seen) == 6
        again = run("cut")
        assert len(server.seen) == 6
    assert learned.proof["teacher"] == {
        "questions": 16, "answered": 16, "accepted": 10, "learned": 10, "rejected": {"shaped": 6},
    }  # fmt: skip
    assert weights(learned.folder) == weights(whole.folder) == weights(again.folder)
    assert learned.proof["sample_answer"].endswith('"}<|im_end|>')


def test_a_teacher_who_only_talks_nonsense_is_not_imitated(base_folder: Path, tmp_path: Path) -> None:
    with serving(lambda body, number: said("<|im_end|> as an AI")) as server:
        teacher = TeacherModel(endpoint=Endpoint(url=server.url, model="m"))
        asked = job(base_folder, tmp_path, BlackBoxSettings(**SHORT), teacher=teacher)
        with pytest.raises(TooFewAccepted, match=r"control_token 16, shaped 16"):
            black_box.learn(asked)
