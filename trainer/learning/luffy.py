"""LUFFY (arXiv:2504.14945): each group also holds answers that the model did not give, and learns from them
through policy shaping, so that tokens it finds unlikely still teach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trainer.datasets import Case, Message
from trainer.datasets.rows import Example
from trainer.errors import DataInvalid, Fault
from trainer.learning.rollouts import Prompt, Rollout, Sampler
from trainer.learning.rows import make_rows


@dataclass(frozen=True, slots=True)
class Mixed:
    """The last ``members`` of every group are the row's own answer instead of a sample."""

    sampler: Sampler
    demonstrations: Mapping[int, tuple[int, ...]]
    """Line -> the tokens of its answer."""
    group_size: int
    members: int

    def ask(self, model: Any, prompts: Sequence[Prompt]) -> list[Rollout]:
        free = [place for place in range(len(prompts)) if not self.given(place)]
        said = iter(self.sampler.answer(model, [prompts[place] for place in free]))
        return [
            replace(self.sampler.rollout(prompt, self.demonstrations[prompt.case.line]), given=True)
            if self.given(place)
            else next(said)
            for place, prompt in enumerate(prompts)
        ]

    def given(self, place: int) -> bool:
        return place % self.group_size >= self.group_size - self.members


def demonstrations(
    tokenizer: Any, cases: Sequence[Case], *, file: str, room: int, max_length: int
) -> dict[int, tuple[int, ...]]:
    """Raises DataInvalid, naming every row that has no answer or one that is too long to be drawn."""
    lacking = tuple(
        Fault(f"{file}:{case.line}", "has no answer, which luffy puts into its group")
        for case in cases
        if not case.answer
    )
    if lacking:
        raise DataInvalid(file, lacking)
    examples = [
        Example(case.prompt, Message("assistant", case.answer or ""), case.line, case.tools) for case in cases
    ]
    rows = make_rows(tokenizer, examples, max_length=max_length, file=file)
    long = tuple(
        Fault(
            f"{file}:{row.line}", f"its answer has {len(row.input_ids) - row.prompt} tokens, more than {room}"
        )
        for row in rows
        if len(row.input_ids) - row.prompt > room
    )
    if long:
        raise DataInvalid(file, long)
    return {row.line: row.input_ids[row.prompt :] for row in rows}


def surrogate(
    log_probs: Any,
    old: Any,
    advantages: Any,
    off_policy: Any,
    *,
    clip: tuple[float, float],
    gamma: float,
) -> Any:
    """What is maximised for each token: the clipped ratio for the model's own answers, the shaped probability
    p / (p + gamma) for the others, whose author's probabilities are taken as 1 (the paper's section 3.2).

    ``log_probs`` and ``old`` are (batch, tokens), ``advantages`` and ``off_policy`` (batch,).
    """
    import torch

    ratio = torch.exp(log_probs - old)
    weight = advantages.unsqueeze(1)
    own = torch.min(ratio * weight, ratio.clamp(1 - clip[0], 1 + clip[1]) * weight)
    probability = torch.exp(log_probs)
    shaped = probability / (probability + gamma) * weight
    return torch.where(off_policy.unsqueeze(1), shaped, own)


def luffy_trainer(base: Any, *, mixed: Mixed, gamma: float) -> Any:
    """TRL's GRPOTrainer with this loss: Dr. GRPO's normalisation, as in the paper, and the KL term."""
    import torch

    class LuffyTrainer(base):  # type: ignore[misc]  # TRL is not followed, so it is Any
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            out = super()._generate_and_score_completions(inputs)
            given = [mixed.given(place) for place in range(len(inputs))]
            out["off_policy"] = torch.tensor(given, device=out["advantages"].device)
            return out

        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            said, mask = inputs["completion_ids"], inputs["completion_mask"]
            log_probs, entropies, _ = self._get_per_token_logps_and_entropies(
                model,
                torch.cat([inputs["prompt_ids"], said], dim=1),
                torch.cat([inputs["prompt_mask"], mask], dim=1),
                said.size(1),
                compute_entropy=True,
            )
            old = inputs.get("old_per_token_logps")
            gain = surrogate(
                log_probs,
                log_probs.detach() if old is None else old,
                inputs["advantages"],
                inputs["off_policy"],
                clip=(self.epsilon_low, self.epsilon_high),
                gamma=gamma,
            )
            own = mask * ~inputs["off_policy"].unsqueeze(1)
            loss = -gain
            if self.beta:
                apart = inputs["ref_per_token_logps"] - log_probs
                divergence = torch.exp(apart) - apart - 1
                # Of the model's own words only: on anybody else's this is no estimate of the divergence.
                loss = loss + self.beta * divergence * own
                self._metrics["train"]["kl"].append(_mean(divergence, own))
            self._metrics["train"]["entropy"].append(_mean(entropies, own))
            total = (loss * mask).sum() / (mask.size(0) * self.max_completion_length)
            return total / self.current_gradient_accumulation_steps

    return LuffyTrainer


def _mean(values: Any, mask: Any) -> float:
    return float((values.detach() * mask).sum() / mask.sum().clamp(min=1))
