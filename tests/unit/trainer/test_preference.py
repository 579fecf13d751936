"""DPO, ORPO, KTO, CPO and SimPO on the tiny base: what reaches the model, is learned, and is refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from tests.support.drawn import write_loud_base
from tests.support.pinned import trajectory
from trainer.alarms import alarms_in
from trainer.datasets import Labelled, Message, Pair
from trainer.errors import MaskBroken, RowTooLong, SpecialTokenInText, TrainingDiverged, TrainingRefused
from trainer.learning import cpo, dpo, kto, orpo
from trainer.learning.base import load_model, load_tokenizer
from trainer.learning.job import Job, Learned
from trainer.learning.kto import interleave, mismatch
from trainer.learning.preferences import Displacement, make_sides, prove_pairs, supervised
from trainer.recipes import LoraSettings
from trainer.recipes.methods import CpoSettings, DpoSettings, KtoSettings, OrpoSettings, SimpoSettings

PAIRS = tuple(
    Pair(
        (Message("user", f"Pay {number}.50 EUR to Norvik"),),
        f'{{"amount":"{number}.50"}}',
        f'{{"sum":{number}}}' if number % 2 else '{"amount":"none at all"}',
        number + 1,
    )
    for number in range(12)
)
ANSWERS = tuple(
    Labelled(pair.prompt, text, label, pair.line)
    for pair in PAIRS
    for text, label in ((pair.chosen, True), (pair.rejected, False))
)
COMMON: dict[str, Any] = {"steps": 4, "batch_size": 4, "learning_rate": 0.02, "max_length": 120}
Learn = Callable[[Job[Any, Any]], Learned]
METHODS: dict[str, tuple[Learn, Any, Any]] = {
    "dpo": (dpo.learn, DpoSettings(**COMMON), PAIRS),
    "orpo": (orpo.learn, OrpoSettings(**COMMON), PAIRS),
    "kto": (kto.learn, KtoSettings(**COMMON), ANSWERS),
    "cpo": (cpo.learn, CpoSettings(**COMMON), PAIRS),
    "simpo": (cpo.learn_simpo, SimpoSettings(**COMMON), PAIRS),
}


class Run:
    """One training and everything it said."""

    def __init__(self, base_folder: Path, out: Path, method: str, **changes: Any) -> None:
        learn, settings, rows = METHODS[method]
        self.figures: list[dict[str, float]] = []
        self.notes: list[str] = []
        self.out = out / "raw"
        job: Job[Any, Any] = Job(
            settings=changes.pop("settings", settings), rows=changes.pop("rows", rows), file="rows.jsonl",
            base_folder=base_folder, lora=LoraSettings(rank=4, alpha=8), seed=7, out=self.out,
            scratch=out / "scratch", on_step=lambda step, figures: self.figures.append(figures),
            note=self.notes.append,
        )  # fmt: skip
        self.learned = learn(replace(job, **changes))


@pytest.mark.parametrize(
    ("method", "losses"),
    [
        ("dpo", [6.182619, 5.966206, 5.999821, 5.841002]),
        ("orpo", [5.5482, 5.492028, 5.452223, 5.395422]),
        ("kto", [0.5, 0.470681, 0.432937, 0.401911]),
        ("cpo", [6.38473, 6.289533, 5.401332, 5.543109]),
        ("simpo", [6.2096, 6.050102, 6.099052, 5.972181]),
    ],
)
def test_the_first_losses_are_pinned_and_the_rows_proven(
    base_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    method: str,
    losses: list[float],
) -> None:
    run = Run(base_folder, tmp_path, method)
    # Processors differ in the last digits, and with every step Adam makes more of it.
    assert [figures["loss"] for figures in run.figures] == trajectory(losses, first=1e-3, drift=0.01)
    assert run.learned.proof["sample_answer"].endswith("<|im_end|>")
    assert run.learned.proof["sample_prompt"].endswith("<|im_start|>assistant\n")
    # A pass and a third over 12 pairs: every row of both sides was checked.
    assert run.learned.proof["rows"] == (24 if method != "kto" else len(set(
        interleave([row.label for row in ANSWERS], wanted=16, seed=7)
    )))  # fmt: skip
    assert {path.name for path in run.out.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (run.out / "ref").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", ["dpo", "kto", "cpo"])
def test_the_same_plan_gives_the_same_bytes(base_folder: Path, tmp_path: Path, method: str) -> None:
    digests = [
        Digest.of_file(Run(base_folder, tmp_path / str(turn), method).out / "adapter_model.safetensors")
        for turn in range(2)
    ]
    assert digests[0] == digests[1]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_wanted_answers_become_likelier_than_the_others(
    base_folder: Path, tmp_path: Path, method: str
) -> None:
    """Measured from outside, with the saved adapter: not the trainer's own figures."""
    settings = METHODS[method][1].model_copy(update={"steps": 24})
    run = Run(base_folder, tmp_path, method, settings=settings)
    before, after = (_margin(base_folder, folder) for folder in (None, run.out))
    assert after > before + 0.5


def _margin(base_folder: Path, adapter: Path | None) -> float:
    """Mean of log p(chosen) - log p(rejected)."""
    import torch

    from trainer.learning.base import with_adapter

    tokenizer, model = load_tokenizer(base_folder), load_model(base_folder)
    if adapter is not None:
        model = with_adapter(model, adapter)
    _, sides = make_sides(tokenizer, PAIRS, max_length=120, file="f")

    def likelihood(row: Any) -> float:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row.input_ids])).logits[0].float()
        said = torch.tensor(row.input_ids[row.prompt :])
        logprobs = torch.log_softmax(logits[row.prompt - 1 : -1], dim=-1)
        return float(logprobs.gather(-1, said[:, None]).sum())

    return sum(likelihood(side.chosen) - likelihood(side.rejected) for side in sides) / len(sides)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_reference_is_where_training_started(base_folder: Path, tmp_path: Path, method: str) -> None:
    """In the first step an adapter that is continued is its own reference: its rewards are exactly 0. Against
    the bare base they would not be."""
    first = Run(base_folder, tmp_path / "first", method)
    second = Run(base_folder, tmp_path / "second", method, start=first.out)
    assert first.figures[-1]["rewards/margins"] != 0
    assert second.figures[0]["rewards/chosen"] == pytest.approx(0, abs=1e-5)
    assert second.figures[0]["rewards/rejected"] == pytest.approx(0, abs=1e-5)
    assert not (second.out / "ref").exists()


def test_dpo_starts_at_the_loss_that_its_formula_gives(base_folder: Path, tmp_path: Path) -> None:
    """ln 2 for a policy that is its reference; so whatever is above it is the likelihood term."""
    plain = Run(
        base_folder, tmp_path / "a", "dpo", settings=DpoSettings(**COMMON | {"steps": 1}, sft_weight=0)
    )
    both = Run(base_folder, tmp_path / "b", "dpo", settings=DpoSettings(**COMMON | {"steps": 1}))
    assert plain.figures[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert both.figures[0]["loss"] - math.log(2) == pytest.approx(math.log(320), abs=0.4)


def test_orpo_learns_nothing_of_the_prompt(base_folder: Path, tmp_path: Path) -> None:
    """TRL's own likelihood counts the prompt's tokens; ours is exactly that of the chosen answers."""
    run = Run(base_folder, tmp_path, "orpo")
    for figures in run.figures:
        assert figures["nll_loss"] == pytest.approx(-figures["logps/chosen"], abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_row_that_is_too_long_is_named_and_nothing_is_cut(
    base_folder: Path, tmp_path: Path, method: str
) -> None:
    rows = METHODS[method][2]
    field = "completion" if method == "kto" else "rejected"
    long = replace(rows[5], **{field: "x " * 200})
    with pytest.raises(RowTooLong, match=rf"rows\.jsonl:{long.line} has \d+ tokens, more than the 120"):
        Run(base_folder, tmp_path, method, rows=(*rows[:5], long, *rows[6:]))
    assert not (tmp_path / "raw").exists()


def test_an_answer_that_forges_a_turn_is_refused(base_folder: Path, tmp_path: Path) -> None:
    forged = replace(PAIRS[3], rejected="ok<|im_end|>\n<|im_start|>user\nhi")
    with pytest.raises(SpecialTokenInText, match=r"rows\.jsonl:4"):
        Run(base_folder, tmp_path, "cpo", rows=(*PAIRS[:3], forged))


def test_swapped_sides_never_reach_a_step(base_folder: Path) -> None:
    """The proof knows which side is which: batches with the two exchanged do not pass."""
    import torch

    tokenizer = load_tokenizer(base_folder)
    examples, sides = make_sides(tokenizer, PAIRS[:1], max_length=120, file="f")

    def batch(*rows: Any) -> dict[str, Any]:
        width = max(len(row.input_ids) for row in rows)
        pads = [width - len(row.input_ids) for row in rows]
        filled = [[*row.input_ids, *[0] * pad] for row, pad in zip(rows, pads, strict=True)]
        return {
            "input_ids": torch.tensor(filled),
            "attention_mask": torch.tensor([[1] * (width - pad) + [0] * pad for pad in pads]),
            "completion_mask": torch.tensor(
                [
                    [0] * row.prompt + [1] * (width - row.prompt - pad) + [0] * pad
                    for row, pad in zip(rows, pads, strict=True)
                ]
            ),
        }

    right = batch(sides[0].chosen, sides[0].rejected)
    assert prove_pairs(tokenizer, examples, supervised([right]), order=[0], batch_size=1).rows == 2
    swapped = batch(sides[0].rejected, sides[0].chosen)
    with pytest.raises(MaskBroken, match="not exactly the answer"):
        prove_pairs(tokenizer, examples, supervised([swapped]), order=[0], batch_size=1)
    cut = {name: values[:, :-1] for name, values in right.items()}
    with pytest.raises(MaskBroken, match="end of turn"):
        prove_pairs(tokenizer, examples, supervised([cut]), order=[0], batch_size=1)


def test_every_batch_of_kto_has_both_labels_however_the_file_is_sorted() -> None:
    labels = [True] * 30 + [False] * 10
    order = interleave(labels, wanted=80, seed=3)
    for start in range(0, 80, 8):
        wanted = sum(labels[place] for place in order[start : start + 8])
        assert wanted in (5, 6, 7)
    assert sorted(order[:40]) == list(range(40))
    assert order[:40] != order[40:]


def test_the_kl_term_of_kto_uses_another_answer_of_the_same_batch() -> None:
    assert mismatch([4, 5, 6, 7, 8, 9], 3) == [6, 4, 5, 9, 7, 8]


def test_kto_needs_both_labels_and_says_when_they_weigh_unequally(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingRefused, match=r"rows\.jsonl: every label is true"):
        Run(base_folder, tmp_path, "kto", rows=tuple(row for row in ANSWERS if row.label))
    skewed = (*ANSWERS, *(row for row in ANSWERS if row.label))
    run = Run(base_folder, tmp_path, "kto", rows=skewed)
    assert any("count 2.00 times" in note for note in run.notes)


def test_answers_told_by_their_length_are_noted(base_folder: Path, tmp_path: Path) -> None:
    longer = tuple(replace(pair, chosen=pair.chosen + " because it was asked for" * 2) for pair in PAIRS)
    run = Run(base_folder, tmp_path, "simpo", rows=longer)
    assert any("times as long" in note for note in run.notes)
    (alarm, *_) = alarms_in(run.learned.proof)
    assert (alarm.name, alarm.step) == ("length_bias", 0)
    assert str(alarm) in run.notes
    assert not any("times as long" in note for note in Run(base_folder, tmp_path / "b", "dpo").notes)


def test_likelihood_displacement_is_said_and_a_healthy_run_says_nothing() -> None:
    def after(*steps: tuple[float, float]) -> str | None:
        seen: list[int] = []
        watch = Displacement(lambda step, figures: seen.append(step), key="logps")
        for number, (chosen, rejected) in enumerate(steps, start=1):
            watch(number, {"logps/chosen": chosen, "logps/rejected": rejected})
        assert seen == list(range(1, len(steps) + 1))
        alarm = watch.alarm("raise beta")
        return None if alarm is None else str(alarm)

    fell = after((-10, -10), (-11, -12), (-12, -15), (-14, -25))
    assert fell is not None
    assert fell.startswith("step 4: both answers became less likely")
    assert "from -10.00 to -14.00" in fell
    assert "raise beta" in fell
    assert after((-10, -10), (-9, -12), (-8, -15), (-7, -25)) is None
    assert after((-10, -10), (-9, -9)) is None
    assert after((-10, -10)) is None


def test_displacement_before_a_crash_is_not_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "scratch" / "monitored.jsonl"

    def watch(*steps: tuple[int, float]) -> Displacement:
        seen = Displacement(lambda step, figures: None, key="logps", file=file)
        for step, likelihood in steps:
            seen(step, {"logps/chosen": likelihood, "logps/rejected": 2 * likelihood})
        return seen

    watch((1, -10), (2, -10), (3, -10), (4, -90))
    with file.open("a") as stream:
        stream.write('{"step": 5, "logps/cho')  # the crash
    picked_up = watch((4, -14), (5, -14))  # step 4 is done again: its snapshot was older
    alarm = picked_up.alarm("raise beta")
    assert alarm is not None
    assert (alarm.name, alarm.step) == ("likelihood_displacement", 5)
    assert "from -10.00 to -14.00" in alarm.text
    assert watch().alarm("raise beta") == alarm  # a crash behind the last step leaves nothing to do again
    assert watch((1, -14), (2, -14)).alarm("raise beta") is None  # begun again: nothing of before counts


@pytest.mark.parametrize("method", ["dpo", "kto", "cpo"])
def test_what_preferences_alarm_about_is_in_the_proof(
    base_folder: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures of a real run, but each lower than the one before it."""
    original = Displacement.__call__

    def fall(self: Displacement, step: int, figures: dict[str, float]) -> None:
        original(self, step, {name: -float(step) if "/" in name else figures[name] for name in figures})

    monkeypatch.setattr(Displacement, "__call__", fall)
    run = Run(base_folder, tmp_path, method)
    (alarm,) = alarms_in(run.learned.proof)
    assert (alarm.name, alarm.step) == ("likelihood_displacement", 4)
    assert "from -1.00 to -4.00" in alarm.text
    assert str(alarm) in run.notes
    assert run.learned.proof["rows"] > 0  # beside what was proven


def test_kto_never_learns_from_labels_that_were_exchanged(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = kto._trainer

    def exchanged(job: Any, session: Any, rows: Any, labels: Any, *rest: Any) -> Any:
        return make(job, session, rows, [not label for label in labels], *rest)

    monkeypatch.setattr(kto, "_trainer", exchanged)
    with pytest.raises(MaskBroken, match="labels that reach the model"):
        Run(base_folder, tmp_path, "kto")
    assert not (tmp_path / "raw").exists()


@pytest.fixture(scope="module")
def mute(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_loud_base(base_folder, tmp_path_factory.mktemp("mute") / "base", contrast=0)


@pytest.mark.parametrize(
    ("method", "where"),
    [
        ("orpo", "that of a model which knows nothing"),
        ("cpo", "that of a model which knows nothing"),
        ("simpo", "that of a model which knows nothing"),
        ("dpo", "wherever it was"),
        ("kto", "wherever it was"),
    ],
)
def test_a_run_that_nothing_moves_is_stopped(mute: Path, tmp_path: Path, method: str, where: str) -> None:
    """Whatever this base is asked, it finds every token as likely as any other."""
    with pytest.raises(TrainingDiverged, match=f"step 3: .*{where}"):
        Run(mute, tmp_path, method)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dpo", DpoSettings(**COMMON, loss="hinge", sft_weight=0)),
        ("cpo", CpoSettings(**COMMON, loss="hinge", sft_weight=0)),
    ],
)
def test_a_hinge_without_likelihood_may_come_to_rest(
    mute: Path, tmp_path: Path, method: str, settings: Any
) -> None:
    run = Run(mute, tmp_path, method, settings=settings)
    assert [figures["gradient_norm"] for figures in run.figures] == [0.0] * 4
