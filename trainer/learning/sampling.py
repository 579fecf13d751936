"""Several answers to every question from a model on this machine, the same whenever they are drawn.

Each batch is seeded by what it asks, so a run that was killed draws on exactly as if it had not been.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from registry import canonical
from registry.digests import Digest
from trainer.answers_file import AnswersFile, key_of
from trainer.asking import Advanced, ask_all
from trainer.datasets import Case
from trainer.endpoint import Reply
from trainer.learning.base import best_device, load_model, load_tokenizer, surroundings, with_adapter
from trainer.learning.job import TeacherModel
from trainer.learning.rollouts import Prompt, Sampler, make_prompts
from trainer.recipes.training import Sampling

AT_ONCE: Final = 128
"""Sequences in one forward pass."""


def draw(
    source: TeacherModel,
    cases: Sequence[Case],
    *,
    file: str,
    sampling: Sampling,
    samples: int,
    seed: int,
    max_length: int,
    kept: AnswersFile,
    who: str = "",
    advanced: Advanced = lambda done, total: None,
) -> list[list[Reply]]:
    """``samples`` answers a case, in the order of the cases, from an endpoint or from weights.

    ``who`` names the weights where one ``kept`` serves several. Raises RowTooLong and the other faults of
    prompts, EndpointUnreachable, EndpointRefused.
    """
    if source.endpoint is not None:
        return ask_all(
            source.endpoint, source.endpoint_key, cases, sampling=sampling, samples=samples, seed=seed,
            longest=sampling.max_new_tokens, kept=kept, advanced=advanced,
        )  # fmt: skip
    if source.base_folder is None:
        raise ValueError("neither weights nor an endpoint")
    keys = [
        [key_of(case, sampling, who=who, seed=seed, number=number) for number in range(samples)]
        for case in cases
    ]
    tokenizer = load_tokenizer(source.base_folder)
    prompts = make_prompts(tokenizer, cases, file=file, room=sampling.max_new_tokens, max_length=max_length)
    places = [(place, number) for place in range(len(cases)) for number in range(samples)]
    places.sort(key=lambda at: (len(prompts[at[0]].ids), at))
    sampler = Sampler(tokenizer, sampling)
    model: Any = None
    for start in range(0, len(places), AT_ONCE):
        batch = places[start : start + AT_ONCE]
        names = [keys[place][number] for place, number in batch]
        if any(name not in kept for name in names):
            model = model or _load(source.base_folder, source.adapter_folder)
            said = _draw(sampler, model, [prompts[place] for place, _ in batch], names)
            for name, reply in zip(names, said, strict=True):
                kept.add(name, reply)
        advanced(start + len(batch), len(places))
    return [[kept[name] for name in several] for several in keys]


def _draw(sampler: Sampler, model: Any, prompts: Sequence[Prompt], names: Sequence[Digest]) -> list[Reply]:
    seed = int(canonical.digest_of(list(names)).hex[:8], 16)
    with surroundings(seed=seed):
        rollouts = sampler.answer(model, prompts)
    return [Reply(one.answer.text, finished=one.answer.finished) for one in rollouts]


def _load(base_folder: Path, adapter_folder: Path | None) -> Any:
    device = best_device()
    with surroundings(seed=0):
        model = load_model(base_folder, device=device, half=device == "cuda")
        return model if adapter_folder is None else with_adapter(model, adapter_folder)
