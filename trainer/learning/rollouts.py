"""Answers drawn from the model that is being trained, as token ids and as what verifiers read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from trainer.datasets import Case
from trainer.errors import EndOfTurnMissing, RowTooLong, TemplateBroken, TrainingRefused
from trainer.learning.base import padding_id
from trainer.learning.rows import refuse_special_tokens, render
from trainer.recipes.training import Sampling
from trainer.rewards import Answer

AT_ONCE: Final = 64
"""Answers generated in one pass: more of them save no time on two cores, and cost memory everywhere."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A case and what serving would feed the model for it."""

    case: Case
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rollout:
    """What was said to one prompt. ``own`` marks the model's words among ``said``: in a game, the partner's
    stand between them and are not learned."""

    prompt: Prompt
    said: tuple[int, ...]
    own: tuple[int, ...]
    answer: Answer
    given: bool = False
    """Whether somebody else said it (LUFFY)."""

    @property
    def length(self) -> int:
        return sum(self.own)


def make_prompts(
    tokenizer: Any, cases: Sequence[Case], *, file: str, room: int, max_length: int
) -> tuple[Prompt, ...]:
    """Rendered by the base's own template, tools included. ``room`` is what an answer may need.

    Raises TemplateBroken, EndOfTurnMissing, SpecialTokenInText, RowTooLong.
    """
    if tokenizer.chat_template is None:
        raise TemplateBroken("this base has no chat template", hint="add one to its tokenizer_config.json")
    if tokenizer.eos_token_id is None:
        raise EndOfTurnMissing("this base's tokenizer has no end-of-text token")
    if not cases:
        raise TrainingRefused(f"{file} has nothing to learn")
    prompts = []
    for case in cases:
        for message in case.prompt:
            refuse_special_tokens(tokenizer, message, f"{file}:{case.line}")
        prompts.append(
            Prompt(case, render(tokenizer, case.prompt, tools=case.tools, add_generation_prompt=True))
        )
    longest = [prompt for prompt in prompts if len(prompt.ids) + room > max_length]
    if longest:
        first = longest[0]
        raise RowTooLong(
            f"{file}:{first.case.line} has {len(first.ids)} tokens, and answers may have {room} more: "
            f"together more than the {max_length} allowed",
            lines=tuple(prompt.case.line for prompt in longest),
            longest=max(len(prompt.ids) + room for prompt in longest),
        )
    return tuple(prompts)


class Sampler:
    """Draws from torch's own generator: what it draws depends on the seed and on nothing else."""

    def __init__(self, tokenizer: Any, sampling: Sampling) -> None:
        self.tokenizer = tokenizer
        self._sampling = sampling
        self._pad = padding_id(tokenizer)

    def answer(self, model: Any, prompts: Sequence[Prompt]) -> list[Rollout]:
        """One answer to each prompt, in their order. Cut answers have no end of turn."""
        said = self.draw(model, [prompt.ids for prompt in prompts])
        return [self.rollout(prompt, ids) for prompt, ids in zip(prompts, said, strict=True)]

    def rollout(self, prompt: Prompt, said: Sequence[int]) -> Rollout:
        """What evaluation would read of these ids: decoded up to the end of turn."""
        ended = bool(said) and said[-1] == self.tokenizer.eos_token_id
        answer = Answer(prompt.case, self.text(said), finished=ended)
        return Rollout(prompt, tuple(said), (1,) * len(said), answer)

    def text(self, said: Sequence[int]) -> str:
        end = self.tokenizer.eos_token_id
        ids = list(said[:-1] if said and said[-1] == end else said)
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def draw(
        self, model: Any, prompts: Sequence[Sequence[int]], *, room: int | None = None
    ) -> list[list[int]]:
        """Token ids behind each prompt, up to the end of turn and with it."""
        return [ids for batch in _slices(prompts, AT_ONCE) for ids in self._draw(model, batch, room)]

    def _draw(self, model: Any, prompts: Sequence[Sequence[int]], room: int | None) -> list[list[int]]:
        import torch

        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[self._pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        learning = model.training
        model.eval()  # no dropout while drawing: what is drawn must be what is served
        with torch.no_grad():
            out = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=seen.to(model.device),
                max_new_tokens=room or self._sampling.max_new_tokens,
                do_sample=True,
                temperature=self._sampling.temperature,
                top_p=self._sampling.top_p,
                top_k=0,
                use_cache=True,
                pad_token_id=self._pad,
                eos_token_id=self.tokenizer.eos_token_id,
            )
        model.train(learning)
        return [self._until_end(row[width:].tolist()) for row in out]

    def _until_end(self, ids: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids


def _slices(prompts: Sequence[Sequence[int]], size: int) -> Iterator[Sequence[Sequence[int]]]:
    for start in range(0, len(prompts), size):
        yield prompts[start : start + size]
