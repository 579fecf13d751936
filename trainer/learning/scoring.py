"""Scores of a reward model: log p("1") - log p("0") behind an answer, or behind each of its steps.

So a reward model is an ordinary LoRA of the causal base: the score is a difference of two of its logits, in
which the rest of the softmax cancels. Engines serve it, and can be asked for it (docs/decisions/0003).

Where it is read: at the end of turn that closes the answer; for a step, at the token in which the separator
behind it ends (the last step's at the end of turn).
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trainer.datasets import Message
from trainer.errors import ScoreUndefined
from trainer.learning.base import (
    best_device,
    load_model,
    load_tokenizer,
    needed_libraries,
    surroundings,
    with_adapter,
)
from trainer.learning.rows import decode, render

GOOD: Final = "1"
BAD: Final = "0"
_TOLERANCE: Final = 1e-3
"""Of the head against the base's own logits, in float32; wrong formulas were off by more than 0.1."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A rendered answer and the places of its tokens where scores are read."""

    input_ids: tuple[int, ...]
    places: tuple[int, ...]


def verdict_tokens(tokenizer: Any) -> tuple[int, int]:
    """(id of "1", id of "0"). Raises ScoreUndefined for a tokenizer that does not have them."""
    found = []
    for text in (GOOD, BAD):
        token = tokenizer.convert_tokens_to_ids(text)
        if token is None or token == tokenizer.unk_token_id or decode(tokenizer, [token]) != text:
            raise ScoreUndefined(f"this base's tokenizer has no token for {text!r}")
        found.append(int(token))
    return found[0], found[1]


def answer_row(tokenizer: Any, prompt: Sequence[Message], text: str) -> tuple[tuple[int, ...], int]:
    """(token ids up to the answer's end of turn, how many of them are prompt). Whatever a model may have
    written is scored: an answer that the template would change is taken as its own tokens."""
    start = render(tokenizer, prompt, add_generation_prompt=True)
    whole = render(tokenizer, (*prompt, Message("assistant", text)))
    end = tokenizer.eos_token_id
    said = whole[len(start) :]
    if whole[: len(start)] != start or end not in said or decode(tokenizer, said[: said.index(end)]) != text:
        said = (*tokenizer.encode(text, add_special_tokens=False), end)
    return (*start, *said[: said.index(end) + 1]), len(start)


def whole_answer(tokenizer: Any, prompt: Sequence[Message], text: str) -> Scored:
    ids, _ = answer_row(tokenizer, prompt, text)
    return Scored(ids, (len(ids) - 1,))


def each_step(tokenizer: Any, prompt: Sequence[Message], steps: Sequence[str], separator: str) -> Scored:
    """The steps joined by ``separator`` as one answer, read behind each of them."""
    ids, start = answer_row(tokenizer, prompt, separator.join(steps))
    places = []
    said = ""
    low = start
    for step in steps[:-1]:
        said += step + separator
        high = len(ids) - 1
        while low < high:  # the first token with which the text reaches the end of the separator
            middle = (low + high) // 2
            if decode(tokenizer, ids[start : middle + 1]).startswith(said):
                high = middle
            else:
                low = middle + 1
        places.append(low)
    return Scored(ids, (*places, len(ids) - 1))


def split_steps(text: str, separator: str) -> list[str]:
    """The steps of an answer that a model wrote: its non-empty pieces."""
    return [piece for piece in text.split(separator) if piece.strip()] or [text]


def with_score_head(model: Any, tokenizer: Any, *, every_token: bool = False) -> Any:
    """``model`` (a causal base) as one that scores, sharing its weights: its last hidden state times the
    difference of two rows of its output layer, which is fixed.

    As TRL's RewardTrainer wants it (sequence classification), or with a score at ``every_token``. Its LoRA
    has the tensor names of the causal base's. Raises ScoreUndefined when that product is not the difference
    of the base's logits (a base that caps or scales them).
    """
    good, bad = verdict_tokens(tokenizer)
    with needed_libraries():
        import torch
        from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification
    kind = AutoModelForTokenClassification if every_token else AutoModelForSequenceClassification
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            scored = kind.from_config(config)
    except ValueError:
        raise ScoreUndefined("transformers has no scoring model of this base's architecture") from None
    setattr(scored, scored.base_model_prefix, _backbone(model))
    direction = _direction(model, good, bad)
    head = torch.nn.Linear(direction.shape[0], 1, bias=False, device=direction.device, dtype=direction.dtype)
    head.weight.data.copy_(direction.unsqueeze(0))
    scored.score = head
    if every_token:
        scored.dropout = torch.nn.Identity()  # on the hidden state that engines will not drop anything of
    scored.requires_grad_(requires_grad=False)
    _check_head(model, tokenizer, direction, (good, bad))
    return scored.eval()


def _backbone(model: Any) -> Any:
    return getattr(model, model.base_model_prefix)


def _direction(model: Any, good: int, bad: int) -> Any:
    weight = model.get_output_embeddings().weight.detach()
    return (weight[good] - weight[bad]).clone()


def _check_head(model: Any, tokenizer: Any, direction: Any, tokens: tuple[int, int]) -> None:
    import torch

    ids = torch.tensor([tokenizer.encode("Pay 840.50 EUR to Norvik Ltd", add_special_tokens=False)])
    with torch.inference_mode():
        ids = ids.to(direction.device)
        hidden = _backbone(model)(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
        logits = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    ours = float((hidden.float() @ direction.float()).item())
    theirs = float((logits[tokens[0]] - logits[tokens[1]]).item())
    allowed = _TOLERANCE if direction.dtype is torch.float32 else 0.1
    if abs(ours - theirs) > allowed * max(1.0, abs(theirs)):
        raise ScoreUndefined(
            f"the score would be {ours:.3f} here and {theirs:.3f} on an engine: this base changes its logits"
        )


class LocalScorer:
    """A base in memory, with or without a reward model's adapter on it. Float32, a batch at a time."""

    def __init__(self, base_folder: Path, adapter_folder: Path | None = None) -> None:
        with surroundings(seed=0):
            self.tokenizer = load_tokenizer(base_folder)
            self._device = best_device()
            model = load_model(base_folder, device=self._device)
            self._direction = _direction(model, *verdict_tokens(self.tokenizer)).float()
            self._backbone = _backbone(model)
            self._adapted = None if adapter_folder is None else with_adapter(model, adapter_folder)

    def scores(
        self, rows: Sequence[Scored], *, adapter: bool = True, batch_size: int = 32
    ) -> list[tuple[float, ...]]:
        """The scores of each row, in its order of places."""
        if adapter and self._adapted is None:
            raise ValueError("this model was loaded without an adapter")
        found: list[tuple[float, ...]] = [()] * len(rows)
        order = sorted(range(len(rows)), key=lambda row: (len(rows[row].input_ids), row))
        with surroundings(seed=0), self._side(adapter):
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                scored = self._batch([rows[row] for row in batch])
                for row, values in zip(batch, scored, strict=True):
                    found[row] = values
        return found

    def _batch(self, rows: Sequence[Scored]) -> list[tuple[float, ...]]:
        import torch

        width = max(len(row.input_ids) for row in rows)
        # Padded behind the end: nothing that is read can see it, so any token will do.
        ids = torch.tensor([[*row.input_ids, *[0] * (width - len(row.input_ids))] for row in rows])
        seen = torch.tensor([[1] * len(row.input_ids) + [0] * (width - len(row.input_ids)) for row in rows])
        with torch.inference_mode():
            hidden = self._backbone(
                input_ids=ids.to(self._device), attention_mask=seen.to(self._device), use_cache=False
            ).last_hidden_state.float()
            scores = (hidden @ self._direction).cpu().tolist()
        return [tuple(line[place] for place in row.places) for row, line in zip(rows, scores, strict=True)]

    @contextlib.contextmanager
    def _side(self, adapter: bool) -> Iterator[None]:
        if adapter or self._adapted is None:
            yield
            return
        with self._adapted.disable_adapter():
            yield
