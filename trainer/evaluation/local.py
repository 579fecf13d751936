"""Answers of the base and of an adapter, generated here with transformers and PEFT: no engine needed."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer.datasets import Case
from trainer.environments import ENVIRONMENTS, environment_of
from trainer.learning.base import (
    best_device,
    load_model,
    load_tokenizer,
    padding_id,
    surroundings,
    with_adapter,
)
from trainer.learning.games import play_games
from trainer.learning.rows import render

Draw = Callable[[list[list[int]]], list[list[int]]]
"""Prefixes -> the token ids behind each."""

Advanced = Callable[[int], None]
"""Called after each batch with the number of questions answered so far."""


class LocalModel:
    """One base in memory, with or without an adapter on it. Float32 and greedy: the same text every time."""

    def __init__(self, base_folder: Path, adapter_folder: Path | None = None) -> None:
        self._tokenizer = load_tokenizer(base_folder)
        self._device = best_device()
        model = load_model(base_folder, device=self._device)
        self._model = model if adapter_folder is None else with_adapter(model, adapter_folder)
        self._adapted = adapter_folder is not None

    def answers(
        self,
        cases: Sequence[Case],
        *,
        adapter: bool,
        max_new_tokens: int,
        batch_size: int,
        advanced: Advanced = lambda _: None,
    ) -> list[str]:
        """One answer a case, in their order, without its end of turn.

        An answer that reaches ``max_new_tokens`` is cut there, as serving would cut it.
        """
        if adapter and not self._adapted:
            raise ValueError("this model was loaded without an adapter")
        prompts = [
            render(self._tokenizer, case.prompt, tools=case.tools, add_generation_prompt=True)
            for case in cases
        ]

        def draw(prefixes: Sequence[Sequence[int]]) -> list[list[int]]:
            return self._generate(prefixes, max_new_tokens, adapter=adapter)

        # Neighbours in length share a batch: less padding, and the KV cache holds less of it.
        order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
        texts = [""] * len(prompts)
        done = 0
        for batch in _slices(order, batch_size):
            said = self._said([cases[index] for index in batch], [prompts[index] for index in batch], draw)
            for index, text in zip(batch, said, strict=True):
                texts[index] = text
            done += len(batch)
            advanced(done)
        return texts

    def divergences(self, cases: Sequence[Case], texts: Sequence[str]) -> list[float | None]:
        """How far the adapter has moved from the base: the KL divergence of its next-token distribution from
        the base's, nats, averaged over the tokens of each of its own answers. None for games and silence."""
        import torch

        found: list[float | None] = []
        for case, text in zip(cases, texts, strict=True):
            start = render(self._tokenizer, case.prompt, tools=case.tools, add_generation_prompt=True)
            said = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            if environment_of(case) is not None or not said:
                found.append(None)
                continue
            ids = torch.tensor([[*start, *said]], device=self._device)
            with surroundings(seed=0), torch.inference_mode():
                own = self._logprobs(ids, len(start))
                with self._model.disable_adapter():
                    bare = self._logprobs(ids, len(start))
            found.append(float((own.exp() * (own - bare)).sum(-1).mean()))
        return found

    def _logprobs(self, ids: Any, start: int) -> Any:
        """(answer tokens, vocabulary): of the token at each place from ``start`` on."""
        logits = self._model(input_ids=ids, use_cache=False).logits[0, start - 1 : -1]
        return logits.float().log_softmax(-1)

    def _said(self, cases: Sequence[Case], prompts: Sequence[Sequence[int]], draw: Draw) -> list[str]:
        """An answer to each case. A case with an environment is played to its end: its text is the moves."""
        texts = [""] * len(cases)
        for name in dict.fromkeys(map(environment_of, cases)):
            places = [place for place, case in enumerate(cases) if environment_of(case) == name]
            asked = [list(prompts[place]) for place in places]
            environment = ENVIRONMENTS.get(name) if name is not None else None
            if environment is not None:
                games = [environment.start(cases[place]) for place in places]
                said = [played.text for played in play_games(self._tokenizer, asked, games, draw)]
            else:
                said = [self._text(ids) for ids in draw(asked)]
            for place, text in zip(places, said, strict=True):
                texts[place] = text
        return texts

    def _generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, adapter: bool
    ) -> list[list[int]]:
        """Token ids behind each prompt, up to the end of turn and with it."""
        import contextlib

        import torch

        width = max(len(prompt) for prompt in prompts)
        pad = padding_id(self._tokenizer)
        ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        attention = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        bare = self._adapted and not adapter
        with (
            surroundings(seed=0),
            torch.inference_mode(),
            self._model.disable_adapter() if bare else contextlib.nullcontext(),
        ):
            out = self._model.generate(
                input_ids=ids.to(self._device),
                attention_mask=attention.to(self._device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                pad_token_id=pad,
                eos_token_id=self._tokenizer.eos_token_id,
                # A base's generation_config may carry sampling values, which greedy decoding warns about.
                temperature=None,
                top_p=None,
                top_k=None,
            )
        return [self._until_end(row[width:].tolist()) for row in out]

    def _until_end(self, ids: list[int]) -> list[int]:
        end = self._tokenizer.eos_token_id
        return ids[: ids.index(end) + 1] if end in ids else ids

    def _text(self, ids: list[int]) -> str:
        end = self._tokenizer.eos_token_id
        said = ids[: ids.index(end)] if end in ids else ids
        return str(self._tokenizer.decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _slices(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


def load(base_folder: Path, adapter_folder: Path | None = None) -> Any:
    """A LocalModel, loaded quietly."""
    with surroundings(seed=0):
        return LocalModel(base_folder, adapter_folder)
