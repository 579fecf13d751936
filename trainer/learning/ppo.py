"""Proximal policy optimization as in RLHF (arXiv:1707.06347, 2009.01325). TRL has dropped it; this is small.

A step draws ``batch_size`` answers, takes the KL penalty off the reward of every token, and passes over them
``epochs`` times. The value head reads the policy's last hidden states; it is not part of the adapter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from trainer.datasets import Case
from trainer.learning.advantages import (
    generalized_advantages,
    masked_mean,
    policy_loss,
    value_loss,
    whitened,
)
from trainer.learning.base import surroundings
from trainer.learning.drawing import Drawing, arrange_prompts
from trainer.learning.job import Job, Learned
from trainer.learning.monitors import Monitor
from trainer.learning.policy import Policy, make_policy, pick
from trainer.learning.remembered import MONITORED
from trainer.learning.rewarding import Rewarded, figures
from trainer.learning.rollouts import Prompt, Sampler, make_prompts
from trainer.learning.session import Session, open_session, save
from trainer.learning.snapshots import SNAPSHOTS, Snapshots
from trainer.learning.watch import Watch
from trainer.recipes.methods import PpoSettings


def learn(job: Job[PpoSettings, Case]) -> Learned:
    """Raises the leaves of TrainingRefused, VerifierFailed and TrainingDiverged."""
    with surroundings(seed=job.seed):
        session = open_session(job)
        settings = job.settings
        if job.trackers:
            job.note("trackers follow TRL's trainers, and ppo is not one: see metrics.jsonl and report.html")
        prompts = make_prompts(
            session.tokenizer,
            job.rows,
            file=job.file,
            room=settings.sampling.max_new_tokens,
            max_length=settings.max_length,
        )
        monitor = Monitor(job.rewards, job.note, file=job.scratch / MONITORED)
        policy = make_policy(job, session)
        _Run(job, session, policy, prompts, monitor).run()
        save(policy.model, job)
    return Learned(job.out, {"prompts": len(prompts), **monitor.proof()})


@dataclass(frozen=True, slots=True)
class Experience:
    """What a step learns from; all (answers, tokens), nothing carries a gradient."""

    batch: dict[str, Any]
    mask: Any
    log_probs: Any
    values: Any
    advantages: Any
    returns: Any
    divergence: float


class _Run:
    def __init__(
        self,
        job: Job[PpoSettings, Case],
        session: Session,
        policy: Policy,
        prompts: Sequence[Prompt],
        monitor: Monitor,
    ) -> None:
        self._job = job
        self._settings = job.settings
        self._policy = policy
        self._prompts = prompts
        self._monitor = monitor
        self._drawing = Drawing(Sampler(session.tokenizer, job.settings.sampling).answer, job.rewards)
        self._watch = Watch(session.uniform, job.on_step, may_rest=True)
        self._snapshots = Snapshots(job.scratch / SNAPSHOTS, every=job.snapshot_every)

    def run(self) -> None:
        settings, size = self._settings, self._settings.batch_size * self._settings.gradient_accumulation
        order = arrange_prompts(len(self._prompts), wanted=settings.steps * size, seed=self._job.seed)
        start = self._snapshots.latest()
        first = 0 if start is None else self._policy.load(start)
        for step in range(first, settings.steps):
            asked = [self._prompts[row] for row in order[step * size : (step + 1) * size]]
            rewarded = self._drawing(self._policy.model, asked, step)
            experience = self._experience(rewarded)
            self._policy.rate(_factor(settings, step))
            found = figures(rewarded, group_size=1) | {"kl": experience.divergence}
            found |= self._learn(experience, step)
            self._watch.saw(step + 1, found)
            self._monitor.saw(step + 1, found)
            if step + 1 < settings.steps and self._snapshots.due():
                place = self._snapshots.place(step + 1)
                self._policy.save(place, step + 1)
                self._snapshots.mark(place)

    def _experience(self, rewarded: Sequence[Rewarded]) -> Experience:
        import torch

        settings = self._settings
        batch, mask = self._policy.batch([one.rollout for one in rewarded])
        with torch.no_grad():
            log_probs, values, _ = self._policy.forward(batch)
            reference = self._policy.reference(batch)
        divergence = (log_probs - reference) * mask
        rewards = -settings.kl * divergence
        ends = mask.sum(1).long() - 1
        totals = torch.tensor([one.total for one in rewarded], device=rewards.device)
        rewards[torch.arange(len(rewarded), device=ends.device), ends] += totals
        values = values * mask
        advantages, returns = generalized_advantages(
            rewards, values, mask, discount=settings.discount, decay=settings.gae_lambda
        )
        if settings.whiten:
            advantages = whitened(advantages, mask)
        apart = float(masked_mean(divergence, mask))
        return Experience(batch, mask, log_probs, values, advantages, returns, apart)

    def _learn(self, experience: Experience, step: int) -> dict[str, float]:
        settings = self._settings
        rows = experience.mask.size(0)
        said: list[dict[str, float]] = []
        for epoch in range(settings.epochs):
            order = list(range(rows))
            Random(f"epoch:{self._job.seed}:{step}:{epoch}").shuffle(order)  # noqa: S311 - an order
            width = -(-rows // settings.minibatches)
            for start in range(0, rows, width):
                said.append(self._update(experience, order[start : start + width]))
        return {name: sum(one[name] for one in said) / len(said) for name in said[0]}

    def _update(self, experience: Experience, rows: Sequence[int]) -> dict[str, float]:
        """One optimizer step on some of the answers, in as many passes as fit."""
        settings = self._settings
        sums = {"loss": 0.0, "policy_loss": 0.0, "value_loss": 0.0, "entropy": 0.0, "clipped": 0.0}
        parts = [rows[at : at + settings.batch_size] for at in range(0, len(rows), settings.batch_size)]
        for part in parts:
            mask = experience.mask[part]
            log_probs, values, entropy = self._policy.forward(pick(experience.batch, part))
            policy, clipped = policy_loss(
                log_probs, experience.log_probs[part], experience.advantages[part], mask, clip=settings.clip
            )
            value = value_loss(
                values, experience.values[part], experience.returns[part], mask, clip=settings.value_clip
            )
            loss = (policy + value) / len(parts)
            loss.backward()
            for name, one in (
                ("loss", policy + value),
                ("policy_loss", policy),
                ("value_loss", value),
                ("entropy", masked_mean(entropy, mask)),
                ("clipped", clipped),
            ):
                sums[name] += float(one.detach()) / len(parts)
        return {**sums, "gradient_norm": self._policy.step()}


def _factor(settings: PpoSettings, step: int) -> float:
    """Of the learning rate, as transformers' schedules have it."""
    if step < settings.warmup_steps:
        return step / max(1, settings.warmup_steps)
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    if settings.schedule == "constant":
        return 1.0
    return 1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
