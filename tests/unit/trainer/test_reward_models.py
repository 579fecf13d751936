"""Outcome reward models: plain LoRAs whose scores an engine would give too."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from registry.intake import inspect
from registry.models import Base
from registry.tensors import read_header
from tests.support.pinned import trajectory
from tests.support.tiny_model import write_jsonl
from trainer.datasets import Case, Dataset, Message, Pair
from trainer.errors import MaskBroken, RecipeInvalid, ScoreUndefined, VerifierFailed
from trainer.evaluation.judges import judge_rows
from trainer.events import ignore
from trainer.learning import reward
from trainer.learning.base import load_model, load_tokenizer, with_adapter
from trainer.learning.job import Job, Learned
from trainer.learning.scoring import LocalScorer, Scored, verdict_tokens, whole_answer, with_score_head
from trainer.package import package
from trainer.plan import make_plan
from trainer.recipes import LoraSettings, load_recipe
from trainer.recipes.methods import RewardModelSettings
from trainer.recipes.sources import RewardSettings
from trainer.rewards import Answer, Resources, build, score
from trainer.rewards.judge import read_mark
from trainer.run import train
from trainer.testing import InMemoryCatalog

PAIRS = tuple(
    Pair(
        (Message("user", f"Pay {number}.50 EUR to Norvik"),),
        f'{{"amount":"{number}.50"}}',
        '{"amount":"none"}',
        number + 1,
        ("odd" if number % 2 else "even",),
    )
    for number in range(16)
)
SETTINGS = RewardModelSettings(steps=12, batch_size=4, learning_rate=0.02, max_length=120)


def learn(base_folder: Path, out: Path, **changes: Any) -> tuple[Learned, list[dict[str, float]]]:
    figures: list[dict[str, float]] = []
    job: Job[Any, Any] = Job(
        settings=SETTINGS, rows=PAIRS, file="pairs.jsonl", base_folder=base_folder,
        lora=LoraSettings(rank=4, alpha=8), seed=7, out=out / "raw", scratch=out / "scratch",
        on_step=lambda step, seen: figures.append(seen),
    )  # fmt: skip
    return reward.learn(replace(job, **changes)), figures


@dataclass(frozen=True)
class Trained:
    folder: Path
    figures: list[dict[str, float]]
    proof: dict[str, Any]


@pytest.fixture(scope="module")
def trained(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    learned, figures = learn(base_folder, tmp_path_factory.mktemp("reward"))
    return Trained(learned.folder, figures, learned.proof)


def test_it_learns_the_preference(trained: Trained) -> None:
    assert [figures["loss"] for figures in trained.figures[:3]] == trajectory(LOSSES, drift=0.01)
    assert trained.figures[-1]["accuracy"] == 1.0
    assert trained.figures[-1]["margin"] > 1
    assert trained.proof["rows"] == 32
    assert trained.proof["sample_answer"].endswith("<|im_end|>")


LOSSES = [0.695338, 0.666481, 0.541544]


def test_intake_takes_it_for_what_it_is_a_lora_of_the_causal_base(
    trained: Trained, base: Base, tmp_path: Path
) -> None:
    config = json.loads((trained.folder / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert not config["modules_to_save"]
    names = read_header(trained.folder / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.model.layers.") for name in names)
    package(trained.folder, tmp_path, base=base.identity(), base_name=base.name)
    shape, _ = inspect(tmp_path, base=base)
    assert shape.rank == 4


def test_the_score_is_a_difference_of_two_log_probabilities(trained: Trained, base_folder: Path) -> None:
    """What any engine gives for the next token behind the end of turn, from the causal model alone."""
    import torch

    tokenizer = load_tokenizer(base_folder)
    model = with_adapter(load_model(base_folder), trained.folder)
    good, bad = verdict_tokens(tokenizer)
    rows = [whole_answer(tokenizer, pair.prompt, pair.chosen) for pair in PAIRS[:5]]
    scores = LocalScorer(base_folder, trained.folder).scores(rows, batch_size=2)
    for row, (found,) in zip(rows, scores, strict=True):
        assert row.input_ids[-1] == tokenizer.eos_token_id
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([row.input_ids])).logits[0, -1]
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        assert found == pytest.approx(float(logprobs[good] - logprobs[bad]), abs=1e-4)


def test_neither_batch_nor_padding_changes_a_score(trained: Trained, base_folder: Path) -> None:
    scorer = LocalScorer(base_folder, trained.folder)
    texts = ["a", "a much longer answer than the others, really", "12"]
    rows = [whole_answer(scorer.tokenizer, PAIRS[0].prompt, text) for text in texts]
    together = scorer.scores(rows, batch_size=3)
    assert [scorer.scores([row])[0] for row in rows] == [pytest.approx(one, abs=1e-5) for one in together]
    assert scorer.scores(rows, adapter=False) != together


def test_an_adapter_is_continued_from_its_own_scores(
    trained: Trained, base_folder: Path, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"steps": 1, "batch_size": 16, "learning_rate": 1e-9})
    learned, figures = learn(base_folder, tmp_path, start=trained.folder, settings=settings)
    judged = judge_rows(_dataset(PAIRS), base_folder=base_folder, adapter_folder=trained.folder, separator="")
    assert figures[0]["margin"] == pytest.approx(judged.metrics()["score_margin"].value, abs=1e-3)
    assert json.loads((learned.folder / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"


def test_a_tokenizer_that_pads_with_its_end_of_turn_still_scores_the_end_of_turn(
    trained: Trained, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would score the token before it: the last one that is no padding."""
    from trainer.learning import session

    def pads_with_its_end(folder: Path) -> Any:
        tokenizer = load_tokenizer(folder)
        tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    monkeypatch.setattr(session, "load_tokenizer", pads_with_its_end)
    settings = SETTINGS.model_copy(update={"steps": 3})
    _, figures = learn(base_folder, tmp_path / "a", settings=settings)
    assert [one["loss"] for one in figures] == pytest.approx(LOSSES, rel=0.2)
    monkeypatch.setattr(reward, "padding", lambda tokenizer: tokenizer.eos_token)
    with pytest.raises(MaskBroken, match="another token"):
        learn(base_folder, tmp_path / "b", settings=settings)


def test_a_base_whose_logits_are_scaled_is_refused(base_folder: Path) -> None:
    model, tokenizer = load_model(base_folder), load_tokenizer(base_folder)
    assert with_score_head(model, tokenizer).score.weight.shape == (1, 32)
    model.lm_head.register_forward_hook(lambda module, inputs, logits: logits * 0.5)
    with pytest.raises(ScoreUndefined, match="changes its logits"):
        with_score_head(model, tokenizer)


def test_a_tokenizer_without_the_two_tokens_is_refused(base_folder: Path) -> None:
    tokenizer = load_tokenizer(base_folder)
    assert [tokenizer.decode([token]) for token in verdict_tokens(tokenizer)] == ["1", "0"]
    tokenizer.convert_tokens_to_ids = lambda text: None if text == "0" else 5
    with pytest.raises(ScoreUndefined):
        verdict_tokens(tokenizer)


def test_whatever_a_model_wrote_is_scored(base_folder: Path) -> None:
    """A template that trims would refuse a training row; here the answer counts as the tokens it had."""
    tokenizer = load_tokenizer(base_folder)
    for text in ("", " \n", "half an ans", '{"a":1}', "two\n\nlines"):
        row = whole_answer(tokenizer, PAIRS[0].prompt, text)
        assert row.input_ids.count(tokenizer.eos_token_id) == 2  # the question's and the answer's
        assert row.input_ids[-1] == tokenizer.eos_token_id


class _Fixed:
    """A scorer whose scores are the numbers in the answers."""

    def __init__(self, base_folder: Path) -> None:
        self.tokenizer = load_tokenizer(base_folder)

    def scores(self, rows: Sequence[Scored], *, adapter: bool, batch_size: int) -> list[tuple[float, ...]]:
        said = [self.tokenizer.decode(row.input_ids).split("assistant\n")[1] for row in rows]
        return [(float(text.split("<")[0]) if adapter else 0.0,) for text in said]


def test_pair_accuracy_counts_no_tie_and_is_told_by_tag(base_folder: Path) -> None:
    prompt = (Message("user", "?"),)
    rows = (
        Pair(prompt, "2", "1", 1, ("easy",)),
        Pair(prompt, "3", "3.0", 2, ("hard",)),
        Pair(prompt, "1", "5", 3, ("hard",)),
        Pair(prompt, "4", "1", 4),
    )
    judged = judge_rows(
        _dataset(rows),
        base_folder=base_folder,
        adapter_folder=base_folder,
        separator="",
        load=lambda base, adapter: _Fixed(base_folder),
    )
    assert judged.metrics()["pair_accuracy"].value == 0.5
    assert judged.metrics(adapter=False)["pair_accuracy"].value == 0.0
    assert judged.metrics()["score_margin"].value == 0.0
    tags = judged.as_json()["by_tag"]
    assert tags["easy"]["adapter"]["pair_accuracy"]["value"] == 1.0
    assert tags["hard"]["adapter"]["pair_accuracy"] == {"value": 0.0, "n": 2, "stderr": 0.0}
    assert judged.adapter_active
    assert judged.samples("")[0]["adapter"] == {
        "text": "2", "rejected": "1", "scores": {"chosen": 2.0, "rejected": 1.0},
    }  # fmt: skip


RECIPE = """\
kind: tenon.recipe/v1
tenant: bank_a
adapter: taste
base: tiny
method: reward
data: {train: train.jsonl, evaluation: held_out.jsonl}
lora: {rank: 4, alpha: 8}
reward: {steps: 12, batch_size: 4, learning_rate: 0.02, max_length: 120}
gate: {rules: [{metric: pair_accuracy, at_least: 0.9}]}
"""


def test_a_whole_run_ends_in_a_fingerprinted_adapter_and_its_figures(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    write_jsonl(tmp_path / "train.jsonl", [_row(pair) for pair in PAIRS])
    held_out = [{**_row(pair), "prompt": f"Please send {pair.line} EUR"} for pair in PAIRS]
    write_jsonl(tmp_path / "held_out.jsonl", held_out)
    planned = make_plan(load_recipe(tmp_path / "recipe.yaml"), catalog=catalog, base_folder=base_folder)
    run = train(planned, base_folder=base_folder, run_folder=tmp_path / "run", sink=ignore)
    assert run.metrics["pair_accuracy"].value > run.baseline["pair_accuracy"].value + 0.2
    assert run.metrics["pair_accuracy"].n == 16
    assert run.adapter_active
    assert len(run.fingerprint.probes) > 8
    files = {path.name: Digest.of_file(path) for path in run.adapter.iterdir()}
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}


# As verifiers


def _ask(*texts: str) -> list[Answer]:
    case = Case("c", PAIRS[0].prompt, 1)
    return [Answer(case, text) for text in texts]


def test_a_reward_model_scores_answers_as_a_verifier(trained: Trained, base_folder: Path) -> None:
    resources = Resources(base_folder=base_folder, adapter_folder=trained.folder)
    lines = [
        (RewardSettings(verifier="reward_model"), resources),
        (RewardSettings(verifier="reward_model", settings={"scale": "probability"}), resources),
    ]
    good, bad = score(build(lines), _ask(PAIRS[0].chosen, PAIRS[0].rejected))
    first, second = good.scores["reward_model"], bad.scores["reward_model"]
    assert first is not None
    assert second is not None
    assert first > second
    scorer = LocalScorer(base_folder, trained.folder)
    row = whole_answer(scorer.tokenizer, PAIRS[0].prompt, PAIRS[0].chosen)
    assert first == pytest.approx(scorer.scores([row])[0][0], abs=1e-5)
    likely = good.scores["reward_model_2"]
    assert likely is not None
    assert 0 < likely < 1
    # It accepts nothing and refuses nothing: it has no threshold.
    assert good.accepted
    assert bad.accepted


@pytest.mark.parametrize("kind", ["reward_model", "process_reward_model", "judge"])
def test_what_a_verifier_needs_is_asked_for_when_the_recipe_is_read(kind: str) -> None:
    with pytest.raises(RecipeInvalid, match=f"{kind} needs"):
        build([(RewardSettings(verifier=kind), Resources())])


@pytest.mark.parametrize(
    ("text", "mark"), [("7", 0.7), ("10", 1.0), ("Score: 0.", 0.0), ("**8**/10".replace("/10", ""), 0.8)]
)
def test_a_judges_mark_is_read(text: str, mark: float) -> None:
    assert read_mark(text, line=3) == mark


@pytest.mark.parametrize("text", ["", "good", "7 or 8", "11", "0.75", "100"])
def test_a_mark_is_never_guessed(text: str) -> None:
    with pytest.raises(VerifierFailed, match="line 3"):
        read_mark(text, line=3)


def _row(pair: Pair) -> dict[str, Any]:
    return {
        "prompt": pair.prompt[0].content,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "tags": list(pair.tags),
    }


def _dataset(rows: tuple[Pair, ...]) -> Dataset[Pair]:
    return Dataset("pairs.jsonl", Digest.of(b""), rows)
