"""The model that PPO trains: a policy with a value head, its reference, its optimizer and their snapshots."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainer.learning.base import padding_id
from trainer.learning.job import Job
from trainer.learning.rollouts import Rollout
from trainer.learning.session import Session

_REFERENCE: Final = "ref"
_STATE: Final = "state.pt"
_LARGEST_GRADIENT: Final = 1.0
HEAD_RATE: Final = 10.0
"""Times the learning rate, for the value head: it starts at nought, and a baseline that lags behind the
policy is noise."""


@dataclass(slots=True)
class Policy:
    model: Any
    """A PEFT model whose adapter "default" is trained."""
    head: Any
    optimizer: Any
    temperature: float
    learning_rate: float
    value_weight: float
    """Share of the value loss's gradient that reaches the adapter behind the head."""
    pad: int

    def batch(self, rollouts: Sequence[Rollout]) -> tuple[dict[str, Any], Any]:
        """(tensors for ``forward``, mask of what the model said itself)."""
        import torch

        before = max(len(one.prompt.ids) for one in rollouts)
        behind = max(len(one.said) for one in rollouts)
        ids, seen, own = [], [], []
        for one in rollouts:
            left, right = before - len(one.prompt.ids), behind - len(one.said)
            ids.append([self.pad] * left + [*one.prompt.ids, *one.said] + [self.pad] * right)
            seen.append([0] * left + [1] * (len(one.prompt.ids) + len(one.said)) + [0] * right)
            own.append([*one.own, *[0] * right])
        device = self.model.device
        tensors = {"ids": torch.tensor(ids, device=device), "seen": torch.tensor(seen, device=device)}
        tensors["behind"] = torch.full((len(rollouts),), behind, device=device)
        return tensors, torch.tensor(own, dtype=torch.float32, device=device)

    def forward(self, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
        """(log-probabilities, values, entropies) of the tokens behind the prompt."""
        import torch

        logits, hidden, said = self._run(batch)
        log_probs = torch.log_softmax(logits, dim=-1)
        entropies = -(log_probs.exp() * log_probs).sum(-1)
        # Of unit length: how far one step of Adam moves a value does not depend on the base's norms.
        seen = torch.nn.functional.normalize(hidden.float(), dim=-1)
        seen = seen.detach() + self.value_weight * (seen - seen.detach())
        values = self.head(seen).squeeze(-1)
        return log_probs.gather(-1, said.unsqueeze(-1)).squeeze(-1), values, entropies

    def reference(self, batch: dict[str, Any]) -> Any:
        """The log-probabilities where training started: of the base, or of the adapter that is continued."""
        import torch

        if _REFERENCE in self.model.peft_config:
            self.model.set_adapter(_REFERENCE, inference_mode=True)
            try:
                logits, _, said = self._run(batch)
            finally:
                self.model.set_adapter("default")
        else:
            with self.model.disable_adapter():
                logits, _, said = self._run(batch)
        return torch.log_softmax(logits, dim=-1).gather(-1, said.unsqueeze(-1)).squeeze(-1)

    def _run(self, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
        """(logits, hidden states, tokens) behind the prompt; each token beside what predicted it."""
        ids, seen, behind = batch["ids"], batch["seen"], int(batch["behind"][0])
        places = (seen.cumsum(-1) - 1).clamp(min=0)
        out = self.model.get_base_model().model(
            input_ids=ids, attention_mask=seen, position_ids=places, use_cache=False
        )
        hidden = out.last_hidden_state[:, -behind - 1 : -1]
        logits = self.model.get_base_model().lm_head(hidden).float() / self.temperature
        return logits, hidden, ids[:, -behind:]

    def rate(self, factor: float) -> None:
        for group, times in zip(self.optimizer.param_groups, (1.0, HEAD_RATE), strict=True):
            group["lr"] = self.learning_rate * factor * times

    def step(self) -> float:
        """Returns the norm of the policy's gradient before it was clipped."""
        import torch

        norms = [
            torch.nn.utils.clip_grad_norm_(group["params"], _LARGEST_GRADIENT)
            for group in self.optimizer.param_groups
        ]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norms[0])

    def save(self, folder: Path, step: int) -> None:
        import torch

        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "step": step,
            "trained": [one.detach() for one in self.optimizer.param_groups[0]["params"]],
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": _generators(),
        }
        torch.save(state, folder / _STATE)

    def load(self, folder: str) -> int:
        """Returns the steps that were done."""
        import torch

        state = torch.load(Path(folder) / _STATE, weights_only=True)
        with torch.no_grad():
            for one, kept in zip(self.optimizer.param_groups[0]["params"], state["trained"], strict=True):
                one.copy_(kept)
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.random.set_rng_state(state["generators"]["cpu"])
        if "cuda" in state["generators"]:
            torch.cuda.set_rng_state_all(state["generators"]["cuda"])
        return int(state["step"])


def make_policy(job: Job[Any, Any], session: Session) -> Policy:
    import torch
    from peft import get_peft_model

    if session.peft_config is not None:
        model = get_peft_model(session.model, session.peft_config)
    else:
        model = session.model
        model.add_adapter(_REFERENCE, model.peft_config["default"])
        for name, weight in model.named_parameters():
            if ".default." in name:
                model.get_parameter(name.replace(".default.", f".{_REFERENCE}.")).data.copy_(weight.data)
        model.set_adapter("default")
    trained = [weight for name, weight in model.named_parameters() if weight.requires_grad]
    head = torch.nn.Linear(model.config.hidden_size, 1, device=model.device)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.AdamW(
        [{"params": trained}, {"params": list(head.parameters())}], lr=job.settings.learning_rate,
        weight_decay=0.0,
    )  # fmt: skip
    tokenizer = session.tokenizer
    pad = padding_id(tokenizer)
    model.train()
    settings = job.settings
    return Policy(
        model,
        head,
        optimizer,
        settings.sampling.temperature,
        settings.learning_rate,
        settings.value_weight,
        pad,
    )


def pick(batch: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """Some answers of a batch."""
    return {name: tensor[list(rows)] for name, tensor in batch.items()}


def _generators() -> dict[str, Any]:
    import torch

    state: dict[str, Any] = {"cpu": torch.random.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state
