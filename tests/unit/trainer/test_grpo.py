"""GRPO under each of its names, and RLOO, on the tiny base."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from tests.support.drawn import (
    CASES,
    SAMPLING,
    Crash,
    Learning,
    learn,
    letters,
    write_loud_base,
)
from tests.support.pinned import trajectory
from trainer.alarms import alarms_in
from trainer.datasets import Case, Message
from trainer.errors import DataInvalid, RowTooLong, SpecialTokenInText, TrainingRefused, VerifierFailed
from trainer.learning.dynamic_sampling import DynamicSampling
from trainer.learning.grpo import PRESETS
from trainer.learning.luffy import Mixed, luffy_trainer, surrogate
from trainer.learning.rewarding import Rewarded, figures, reward, undecided
from trainer.learning.rollouts import Prompt, Rollout
from trainer.recipes.methods import GrpoSettings, RlooSettings
from trainer.recipes.training import Sampling
from trainer.rewards import Answer, Reward, each

GRPO = GrpoSettings(
    steps=4,
    batch_size=8,
    group_size=4,
    learning_rate=0.02,
    max_length=100,
    sampling=SAMPLING,
    schedule="constant",
)
RLOO = RlooSettings(
    steps=4,
    batch_size=8,
    group_size=4,
    learning_rate=0.02,
    max_length=100,
    sampling=SAMPLING,
    schedule="constant",
)


@pytest.fixture(scope="module")
def loud(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_loud_base(base_folder, tmp_path_factory.mktemp("loud") / "base")


@pytest.fixture(scope="module")
def plain(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Learning:
    return learn(GRPO, base_folder, tmp_path_factory.mktemp("grpo"))


def of(preset: str, **changes: Any) -> GrpoSettings:
    return GrpoSettings.model_validate({**GRPO.model_dump(), "preset": preset, **changes})


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_learns_from_its_own_answers(preset: str, base_folder: Path, tmp_path: Path) -> None:
    learning = learn(of(preset), base_folder, tmp_path)
    assert [step["step"] for step in learning.steps] == [1, 2, 3, 4]
    first = learning.steps[0]
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    assert learning.steps[-1]["kl"] > 1e-5  # it has left its reference
    assert 0 <= first["reward.letters"] <= 1
    if preset == "dapo":  # soft punishment of what was cut at the longest allowed
        assert first["truncated"] > 0
        assert first["reward"] == pytest.approx(first["reward.letters"] - first["truncated"])
    else:  # noise without an end is masked in dapo, and nothing is left to measure
        assert first["reward"] == pytest.approx(first["reward.letters"])
        assert first["entropy"] == pytest.approx(math.log(320), rel=0.2)
    assert first["length_min"] <= first["length"] <= first["length_max"] <= 8
    assert {"zero_variance", "truncated", "reward_std", "valid_json"} <= set(first)
    assert (learning.out / "adapter_model.safetensors").is_file()
    assert learning.proof["preset"] == preset


def test_the_first_rewards_and_losses_are_pinned(plain: Learning) -> None:
    assert plain.rewards == trajectory(PINNED_REWARDS, first=1e-4, drift=0.15)
    assert [step["loss"] for step in plain.steps] == trajectory(PINNED_LOSSES, drift=0.3, off=3e-4)


def test_rloo_is_pinned_too(base_folder: Path, tmp_path: Path) -> None:
    learning = learn(RLOO, base_folder, tmp_path)
    assert learning.rewards == trajectory(PINNED_RLOO, first=1e-4, drift=0.15)
    assert learning.steps[-1]["kl"] != 0


@pytest.mark.parametrize("settings", [of("dr_grpo", kl=0.0), RLOO], ids=["grpo", "rloo"])
def test_the_reward_rises(settings: Any, loud: Path, tmp_path: Path) -> None:
    longer = {"steps": 12, "batch_size": 64, "group_size": 8, "learning_rate": 0.05}
    learning = learn(settings.model_copy(update=longer), loud, tmp_path)
    assert sum(learning.rewards[-3:]) > sum(learning.rewards[:3]) + 0.3


def test_the_same_job_gives_the_same_bytes_and_another_seed_others(
    plain: Learning, base_folder: Path, tmp_path: Path
) -> None:
    again = learn(GRPO, base_folder, tmp_path / "again")
    other = learn(GRPO, base_folder, tmp_path / "other", seed=8)
    assert plain.digest() == again.digest() != other.digest()
    assert plain.steps == again.steps


@pytest.mark.parametrize(
    "settings", [of("dapo"), of("dr_grpo", iterations=2), RLOO], ids=["dapo", "iterations", "rloo"]
)
def test_a_crash_changes_nothing(settings: Any, base_folder: Path, tmp_path: Path) -> None:
    whole = learn(settings, base_folder, tmp_path / "whole")
    with pytest.raises(Crash):
        learn(settings, base_folder, tmp_path / "crashed", crash_after=4, snapshot_every=0)
    picked_up = learn(settings, base_folder, tmp_path / "crashed")
    assert picked_up.steps[0]["step"] > 1
    assert picked_up.digest() == whole.digest()


def test_continuing_an_adapter_measures_divergence_from_it(base_folder: Path, tmp_path: Path) -> None:
    start = learn(of("dr_grpo", learning_rate=0.1), base_folder, tmp_path / "start")
    for settings in (GRPO, RLOO):
        more = learn(settings, base_folder, tmp_path / settings.method, start=start.out)
        assert more.steps[0]["kl"] == pytest.approx(0, abs=1e-5)
        assert not (more.out / "ref").exists()
        assert more.digest() != start.digest()


def test_several_steps_may_learn_from_one_draw(base_folder: Path, tmp_path: Path) -> None:
    learning = learn(of("dr_grpo", iterations=2), base_folder, tmp_path)
    assert ["reward" in step for step in learning.steps] == [True, False, True, False]
    assert learning.steps[1]["clipped"] > 0  # the second step has an older policy to stay near


@pytest.mark.parametrize("settings", [of("dr_grpo"), RLOO], ids=["grpo", "rloo"])
def test_a_draw_without_a_gradient_is_no_death(settings: Any, base_folder: Path, tmp_path: Path) -> None:
    flat = Reward("flat", 1.0, each(lambda answer: 1.0))
    still = settings.model_copy(update={"kl": 0.0})
    learning = learn(still, base_folder, tmp_path, rewards=(flat,))
    assert [step["gradient_norm"] for step in learning.steps] == [0.0] * 4


# Dynamic sampling


def fake(case: Case, total: float) -> Rewarded:
    rollout = Rollout(Prompt(case, (1,)), (2,), (1,), Answer(case, ""))
    return Rewarded(rollout, reward([Reward("x", 1.0, each(lambda _: total))], [rollout])[0].scored, total)


def test_groups_that_teach_nothing_are_drawn_again() -> None:
    prompts = [Prompt(case, (1,)) for case in CASES]
    asked: list[int] = []

    def draw(model: Any, wanted: Any, step: int) -> list[Rewarded]:
        asked.append(len(wanted) // 2)
        first = len(asked) == 1
        # At first only the first group differs; later every group does.
        return [
            fake(prompt.case, float(place % 2 if not first or place < 2 else 0))
            for place, prompt in enumerate(wanted)
        ]

    told: list[tuple[int, int]] = []
    sampling = DynamicSampling(draw, prompts, 2, 4, 7, lambda *seen: told.append(seen))
    drawn = sampling(None, [prompt for prompt in prompts[:3] for _ in range(2)], 0)
    assert asked == [3, 2]  # only the silent ones were asked anew
    assert told == [(2, 0)]
    assert not any(undecided(drawn[at : at + 2]) for at in (0, 2, 4))


def test_it_gives_up_after_its_rounds_and_keeps_what_there_is() -> None:
    prompts = [Prompt(case, (1,)) for case in CASES]
    rounds: list[int] = []

    def draw(model: Any, wanted: Any, step: int) -> list[Rewarded]:
        rounds.append(step)
        return [fake(prompt.case, 0.0) for prompt in wanted]

    told: list[tuple[int, int]] = []
    sampling = DynamicSampling(draw, prompts, 2, 3, 7, lambda *seen: told.append(seen))
    assert len(sampling(None, [prompts[0]] * 4, 5)) == 4
    assert (rounds, told) == ([5] * 4, [(0, 2)])


def test_dapo_really_replaces_groups(base_folder: Path, tmp_path: Path) -> None:
    """A reward that half of all groups agree on: without further draws, they would have taught nothing."""
    rare = Reward("rare", 1.0, each(lambda answer: float("a" in answer.text)))
    plain = learn(of("grpo"), base_folder, tmp_path / "grpo", rewards=(rare,))
    dapo = learn(of("dapo", resample=8), base_folder, tmp_path / "dapo", rewards=(rare,))
    assert sum(step["zero_variance"] for step in plain.steps) > 0
    assert dapo.proof["groups"]["replaced"] > 0
    assert sum(step["zero_variance"] for step in dapo.steps) < sum(
        step["zero_variance"] for step in plain.steps
    )


def test_dapo_learns_nothing_from_answers_that_were_cut(base_folder: Path, tmp_path: Path) -> None:
    """Random text of three tokens has no end; without the mask its rewards would teach."""
    short = {"steps": 2, "kl": 0.0, "sampling": Sampling(max_new_tokens=3)}
    dapo = learn(of("dapo", **short), base_folder, tmp_path / "dapo")
    assert [step["truncated"] for step in dapo.steps] == [1.0, 1.0]
    assert [step["gradient_norm"] for step in dapo.steps] == [0.0, 0.0]
    plain = learn(of("grpo", **short), base_folder, tmp_path / "grpo")
    assert plain.steps[0]["gradient_norm"] > 0


def test_gspo_clips_whole_answers_where_grpo_clips_tokens(base_folder: Path, tmp_path: Path) -> None:
    """With the same clips and the same answers, the second step of a draw tells them apart."""
    gspo = learn(of("gspo", steps=2, iterations=2), base_folder, tmp_path / "gspo")
    clips = {"clip": PRESETS["gspo"]["epsilon"], "clip_high": PRESETS["gspo"]["epsilon_high"]}
    grpo = learn(of("grpo", steps=2, iterations=2, **clips), base_folder, tmp_path / "grpo")
    assert gspo.steps[0]["loss"] == pytest.approx(grpo.steps[0]["loss"], abs=1e-6)
    assert gspo.steps[1]["clipped"] != grpo.steps[1]["clipped"]
    assert gspo.steps[1]["clipped"] * GRPO.batch_size == pytest.approx(
        round(gspo.steps[1]["clipped"] * GRPO.batch_size), abs=1e-5
    )
    assert gspo.digest() != grpo.digest()


# LUFFY


def test_given_answers_are_in_no_figure_of_the_draw() -> None:
    own, given = fake(CASES[0], 0.25), fake(CASES[0], 1.0)
    given = replace(given, rollout=replace(given.rollout, said=(2, 3, 4), own=(1, 1, 1), given=True))
    assert {**figures([own, given], group_size=2), "zero_variance": 0.0} == {
        **figures([own], group_size=1),
        "zero_variance": 0.0,
    }
    assert figures([own, given], group_size=2)["zero_variance"] == 0.0  # the group does teach


def test_given_answers_are_in_neither_luffys_divergence_nor_its_figures() -> None:
    torch = pytest.importorskip("torch")

    class Trainer:
        """The part of TRL's trainer that the loss asks."""

        epsilon_low = epsilon_high = 0.2
        beta = 0.5
        max_completion_length = 2
        current_gradient_accumulation_steps = 1

        def __init__(self) -> None:
            self._metrics: Any = {"train": {"kl": [], "entropy": []}}

        def _get_per_token_logps_and_entropies(self, *rest: Any, **more: Any) -> Any:
            return torch.full((2, 2), -1.0), torch.tensor([[1.0, 3.0], [50.0, 70.0]]), None

    ones = torch.ones(2, 2, dtype=torch.long)
    trainer = luffy_trainer(Trainer, mixed=cast("Mixed", None), gamma=0.1)()
    loss = trainer._compute_loss(
        None,
        {
            "prompt_ids": ones,
            "prompt_mask": ones,
            "completion_ids": ones,
            "completion_mask": ones,
            "advantages": torch.zeros(2),
            "off_policy": torch.tensor([False, True]),
            "ref_per_token_logps": torch.tensor([[-1.0, 0.0], [5.0, 5.0]]),
        },
    )
    # e^1 - 1 - 1 in one of the model's own two tokens; the given answer would add e^6 - 7 in each of its own.
    assert trainer._metrics["train"] == {"kl": [pytest.approx((math.e - 2) / 2)], "entropy": [2.0]}
    assert float(loss) == pytest.approx(0.5 * (math.e - 2) / 4)


def test_the_shaped_surrogate_by_hand() -> None:
    torch = pytest.importorskip("torch")
    log_probs = torch.log(torch.tensor([[0.5, 0.1], [0.5, 0.1]]))
    old = torch.log(torch.tensor([[0.25, 0.1], [0.9, 0.9]]))
    advantages = torch.tensor([1.0, 2.0])
    given = torch.tensor([False, True])
    found = surrogate(log_probs, old, advantages, given, clip=(0.2, 0.3), gamma=0.1)
    # Own answer: ratio 2 clipped to 1.3, ratio 1. Given answer: 0.5/0.6 and 0.1/0.2, times 2; ``old`` is not
    # looked at.
    assert found.tolist() == [pytest.approx([1.3, 1.0]), pytest.approx([10 / 6, 1.0])]


def test_shaping_moves_unlikely_tokens_more() -> None:
    """Its gradient by log p is p*gamma/(p+gamma)^2: greatest at p = gamma, where a plain ratio has only p."""
    torch = pytest.importorskip("torch")
    log_probs = torch.log(torch.tensor([[0.9, 0.1, 0.001]])).requires_grad_()
    given = torch.tensor([True])
    gain = surrogate(log_probs, log_probs.detach(), torch.ones(1), given, clip=(0.2, 0.2), gamma=0.1)
    gain.sum().backward()
    assert log_probs.grad.tolist()[0] == pytest.approx([0.09, 0.25, 0.0098], abs=1e-3)


def test_the_rows_own_answer_stands_in_every_group(base_folder: Path, tmp_path: Path) -> None:
    seen: list[str] = []

    def judge(answer: Answer) -> float:
        seen.append(answer.text)
        return letters(answer)

    learn(of("luffy", steps=1), base_folder, tmp_path, rewards=(Reward("letters", 1.0, each(judge)),))
    groups = [seen[at : at + 4] for at in (0, 4)]
    assert all(group[3].startswith("ok ") for group in groups)
    assert not any(text.startswith("ok ") for group in groups for text in group[:3])


def test_luffy_learns_an_answer_that_was_never_drawn(loud: Path, tmp_path: Path) -> None:
    wanted = Reward("wanted", 1.0, each(lambda answer: float(answer.text.startswith("ok "))))
    settings = of("luffy", steps=12, kl=0.0, learning_rate=0.05, shaping=0.005)
    learning = learn(settings, loud, tmp_path, rewards=(wanted,))
    assert set(learning.rewards) == {0.0}  # it never gave the answer itself
    assert given_logprob(loud, learning.out) > given_logprob(loud, None) + 1


def given_logprob(base: Path, adapter: Path | None) -> float:
    """Of the first case's own answer."""
    from trainer.learning.base import load_model, load_tokenizer, surroundings, with_adapter
    from trainer.learning.rows import render

    with surroundings(seed=0):
        import torch

        tokenizer = load_tokenizer(base)
        model = load_model(base) if adapter is None else with_adapter(load_model(base), adapter)
        case = CASES[0]
        prompt = render(tokenizer, case.prompt, add_generation_prompt=True)
        said = tokenizer(case.answer, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt, *said]])).logits[0]
        places = range(len(prompt) - 1, len(prompt) + len(said) - 1)
        chances = logits.log_softmax(-1)
        return sum(float(chances[at, token]) for at, token in zip(places, said, strict=True))


def test_luffy_needs_an_answer_in_every_row(base_folder: Path, tmp_path: Path) -> None:
    bare = tuple(Case(one.id, one.prompt, one.line) for one in CASES[:2])
    with pytest.raises(DataInvalid, match=r"questions\.jsonl:2: has no answer") as caught:
        learn(of("luffy"), base_folder, tmp_path, rows=bare)
    assert len(caught.value.faults) == 2


# Traps


def test_a_question_that_no_reward_applies_to_stops_the_run(base_folder: Path, tmp_path: Path) -> None:
    silent = Reward("silent", 1.0, each(lambda answer: None if answer.case.line == 3 else 1.0))
    with pytest.raises(VerifierFailed, match="no reward applies to line 3"):
        learn(of("grpo", steps=6), base_folder, tmp_path, rewards=(silent,))


def test_a_verifier_that_fails_in_the_middle_stops_the_run(base_folder: Path, tmp_path: Path) -> None:
    bad = Reward("bad", 1.0, each(lambda answer: math.nan if answer.case.line == 2 else 0.5))
    with pytest.raises(VerifierFailed, match="bad gave nan, no finite number, at line 2"):
        learn(of("grpo", steps=6), base_folder, tmp_path, rewards=(bad,))


def test_prompts_without_room_for_an_answer_are_refused(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RowTooLong, match="answers may have 90 more") as caught:
        learn(of("grpo", sampling=Sampling(max_new_tokens=90)), base_folder, tmp_path)
    assert caught.value.facts["lines"] == (1, 2, 3, 4, 5, 6)


def test_control_tokens_in_a_question_are_refused(base_folder: Path, tmp_path: Path) -> None:
    forged = (Case("x", (Message("user", "a<|im_end|>b"),), 5),)
    with pytest.raises(SpecialTokenInText, match=r"questions\.jsonl:5"):
        learn(GRPO, base_folder, tmp_path, rows=forged)


def test_nothing_to_ask_is_said(base_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingRefused, match="nothing to learn"):
        learn(GRPO, base_folder, tmp_path, rows=())


def test_groups_must_be_whole() -> None:
    with pytest.raises(ValidationError, match="must divide the answers of a step"):
        GrpoSettings(batch_size=10, group_size=4)
    assert RlooSettings(batch_size=2, gradient_accumulation=4, group_size=8).group_size == 8


def test_rewards_that_are_all_equal_raise_their_alarm(base_folder: Path, tmp_path: Path) -> None:
    flat = Reward("flat", 1.0, each(lambda answer: 1.0))
    learning = learn(GRPO, base_folder, tmp_path, rewards=(flat, Reward("l", 0.0, each(letters))))
    (alarm,) = alarms_in(learning.proof)
    assert (alarm.name, alarm.step) == ("zero_variance", 3)
    assert learning.notes == [str(alarm)]


PINNED_REWARDS = [0.398057, 0.478791, 0.210760, 0.470035]
PINNED_LOSSES = [0.000000, -0.015754, 0.000083, 0.000114]
PINNED_RLOO = [0.398057, 0.478791, 0.210760, 0.470035]
