"""A version's reference behaviour on sixteen prompts or more, by which an engine's slot is recognised later.

Eight random prompts, the same for all versions of a base, let versions be compared. Eight come from the
tenant's own questions, each cut just before the token where adapter and base differ most: there a trained
adapter is up to ten times easier to tell from its neighbours (docs/concepts/attestation.md). Where that does
not lift base and siblings out of the noise of half precision, there are more, up to MAX_PROBES.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from registry.digests import Digest
from registry.fingerprint import (
    COMMON_PROBES,
    MAX_PROBE_TOKENS,
    MAX_PROBES,
    MAX_TOKENS,
    MIN_SEPARATION,
    TOP_OBSERVED,
    TOP_REFERENCE,
    ZERO_EFFECT,
    Fingerprint,
    Probe,
    Rounded,
    TopLogprobs,
    apart,
    distance,
)
from trainer.datasets import Message, Tools
from trainer.errors import ZeroEffect
from trainer.learning.base import load_model, load_tokenizer, surroundings, with_adapter
from trainer.learning.rows import render

TENANT_PROBES: Final = 8
RANDOM_LENGTH: Final = 24
_DECIMALS: Final = 7
"""A hundredth of EXACT_F32, and half the file."""
_NOISE_DIGITS: Final = 3

_STEP: Final = 8
"""Probes by which a set grows."""
PRECISIONS: Final[tuple[Rounded, ...]] = get_args(Rounded)

Kind: TypeAlias = Literal["random", "tenant"]


class Prompt(NamedTuple):
    kind: Kind
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TenantPrompt:
    """A question and what the adapter (or a person) answers to it."""

    messages: tuple[Message, ...]
    answer: str
    tools: Tools = ()


@dataclass(frozen=True, slots=True)
class _Measured:
    probe: Probe
    noise: Mapping[Rounded, float]
    """Distance of the same model in that type; not finite where it does not work (float16 can overflow)."""


def make_fingerprint(
    base: Digest,
    base_folder: Path,
    adapter_folder: Path,
    tenant_prompts: Sequence[TenantPrompt],
    *,
    siblings: Mapping[Digest, Fingerprint] | None = None,
) -> Fingerprint:
    """Measure on the CPU with transformers and PEFT, in float32 and against it in both half precisions:
    seconds for a small base. ``siblings``: other versions of the adapter, to be told from.

    Fewer than TENANT_PROBES usable prompts give fewer tenant probes. Raises ZeroEffect for an adapter that
    cannot be told from its base.
    """
    others = {version: each for version, each in (siblings or {}).items() if each.base == base}
    with surroundings(seed=0):
        tokenizer = load_tokenizer(base_folder)
        model = with_adapter(load_model(base_folder), adapter_folder)
        strange = [Prompt("random", ids) for ids in random_prompts(base, tokenizer, MAX_PROBES)]
        asked, kept = _spread(tenant_prompts)
        first = _unique([*strange[:COMMON_PROBES], *_cuts(model, tokenizer, asked)], known=[])
        measured = _measure(model, first, base_folder, adapter_folder)
        found = _fingerprint(base, measured, others)
        if not found.distance_to_base >= ZERO_EFFECT:
            away = f"{found.distance_to_base:.1e}"
            raise ZeroEffect(f"the adapter is {away} away from its base, less than {ZERO_EFFECT:.0e}")
        if _separation(found, others) >= MIN_SEPARATION:
            return found
        # Where a sibling was recognised best, then where this one is, then what any two versions share.
        theirs = [Prompt(p.kind, p.token_ids) for each in others.values() for p in each.probes]
        words = range(model.get_input_embeddings().num_embeddings)
        known = [each for each in theirs if all(token in words for token in each.token_ids)]
        more = _unique([*known, *_cuts(model, tokenizer, kept), *strange], known=first)
        measured += _measure(model, _fitting(more, beside=first), base_folder, adapter_folder)
    sizes = [*range(len(first), len(measured), _STEP), len(measured)]
    candidates = [_fingerprint(base, measured[:size], others) for size in sizes]
    reached = [_separation(each, others) for each in candidates]
    # More probes that help nothing would only be asked again and again, for ever.
    enough = min(0.95 * max(reached), MIN_SEPARATION)
    return next(each for each, far in zip(candidates, reached, strict=True) if far >= enough)


def _fingerprint(
    base: Digest, measured: Sequence[_Measured], siblings: Mapping[Digest, Fingerprint]
) -> Fingerprint:
    probes = tuple(each.probe for each in measured)
    noise = {dtype: _mean([each.noise[dtype] for each in measured]) for dtype in PRECISIONS}
    known = {dtype: value for dtype, value in noise.items() if math.isfinite(value) and value > 0}
    made = Fingerprint(base=base, probes=probes, distance_to_base=0, noise=known)
    far = made.effect
    alike = {
        dtype: tuple(
            version
            for version, sibling in sorted(siblings.items())
            if (gap := apart(made, sibling)) is not None and gap < MIN_SEPARATION * value
        )
        for dtype, value in known.items()
    }
    return made.model_copy(
        update={
            "distance_to_base": far,
            "weak": tuple(dtype for dtype, value in known.items() if far < MIN_SEPARATION * value),
            "alike": {dtype: versions for dtype, versions in alike.items() if versions},
        }
    )


def _separation(found: Fingerprint, siblings: Mapping[Digest, Fingerprint]) -> float:
    """How many times the noise the nearest other reference is away, in the worst type."""
    gaps = [gap for each in siblings.values() if (gap := apart(found, each)) is not None]
    nearest = min([found.distance_to_base, *gaps])
    return min((nearest / value for value in found.noise.values()), default=math.inf)


def _measure(
    model: Any, prompts: Sequence[Prompt], base_folder: Path, adapter_folder: Path
) -> list[_Measured]:
    """In float32, and how far rounding takes the very same model from that."""
    import torch

    with torch.inference_mode():
        probes = [_probe(model, *prompt) for prompt in prompts]
        noise: list[dict[Rounded, float]] = [{} for _ in probes]
        for dtype in PRECISIONS:
            rounded = with_adapter(load_model(base_folder, dtype=dtype), adapter_folder)
            for name, weight in rounded.named_parameters():
                if "lora_" in name:  # PEFT keeps these in float32, engines do not
                    weight.data = weight.data.to(getattr(torch, dtype))
            for probe, found in zip(probes, noise, strict=True):
                seen = _top(_logprobs(rounded, probe.token_ids)[-1])[:TOP_OBSERVED]
                found[dtype] = distance([seen], [probe.own])
    return [_Measured(probe, found) for probe, found in zip(probes, noise, strict=True)]


def _mean(values: Sequence[float]) -> float:
    """Rounded: how a processor adds up half precision must not change a version's digest for nothing."""
    return float(f"{sum(values) / len(values):.{_NOISE_DIGITS}g}")


def _unique(prompts: Sequence[Prompt], *, known: Sequence[Prompt]) -> list[Prompt]:
    ids = {prompt.token_ids for prompt in known}
    return [prompt for prompt in prompts if not (prompt.token_ids in ids or ids.add(prompt.token_ids))]  # type: ignore[func-returns-value]


def _fitting(prompts: Sequence[Prompt], *, beside: Sequence[Prompt]) -> list[Prompt]:
    """As many as a fingerprint may have; siblings of before there were bounds may have longer ones."""
    room = MAX_TOKENS - sum(len(prompt.token_ids) for prompt in beside)
    found: list[Prompt] = []
    for prompt in prompts:
        if len(prompt.token_ids) <= min(room, MAX_PROBE_TOKENS):
            found.append(prompt)
            room -= len(prompt.token_ids)
    return found[: MAX_PROBES - len(beside)]


def random_prompts(base: Digest, tokenizer: Any, count: int = COMMON_PROBES) -> list[tuple[int, ...]]:
    """The same for every version of ``base``, and the first of them whatever ``count`` is. No special or
    added tokens: engines may treat those apart."""
    reserved = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ordinary = [token for token in range(len(tokenizer)) if token not in reserved]
    draw = random.Random(f"probes:{base}")  # noqa: S311 - public on purpose
    return [tuple(draw.choices(ordinary, k=RANDOM_LENGTH)) for _ in range(count)]


def _spread(prompts: Sequence[TenantPrompt]) -> tuple[list[TenantPrompt], list[TenantPrompt]]:
    """(TENANT_PROBES of them, evenly over the list, for files are often sorted by kind; the others)"""
    count = min(TENANT_PROBES, len(prompts))
    places = [place * len(prompts) // count for place in range(count)]
    others = [prompt for place, prompt in enumerate(prompts) if place not in places]
    return [prompts[place] for place in places], others[: MAX_PROBES - count]


def _cuts(model: Any, tokenizer: Any, prompts: Sequence[TenantPrompt]) -> list[Prompt]:
    import torch

    with torch.inference_mode():
        cuts = [_most_different(model, tokenizer, prompt) for prompt in prompts]
    return _unique([Prompt("tenant", cut) for cut in cuts if cut is not None], known=[])


def _most_different(model: Any, tokenizer: Any, prompt: TenantPrompt) -> tuple[int, ...] | None:
    """The prompt and the answer up to the token whose distribution the adapter changes most, of those that
    MAX_PROBE_TOKENS leave."""
    start = render(tokenizer, prompt.messages, tools=prompt.tools, add_generation_prompt=True)
    whole = render(tokenizer, (*prompt.messages, Message("assistant", prompt.answer)), tools=prompt.tools)
    whole = whole[: MAX_PROBE_TOKENS + 1]
    if whole[: len(start)] != start or len(whole) == len(start):
        return None
    own = _logprobs(model, whole)[len(start) - 1 : -1]
    with model.disable_adapter():
        bare = _logprobs(model, whole)[len(start) - 1 : -1]
    top = own.topk(min(TOP_OBSERVED, own.shape[-1]), dim=-1).indices
    apart = (own.gather(-1, top) - bare.gather(-1, top)).abs().mean(dim=-1)
    return whole[: len(start) + int(apart.argmax())]


def _probe(model: Any, kind: Kind, ids: tuple[int, ...]) -> Probe:
    own = _top(_logprobs(model, ids)[-1])
    with model.disable_adapter():
        bare = _top(_logprobs(model, ids)[-1])
    return Probe(kind=kind, token_ids=ids, own=own, base=bare)


def _logprobs(model: Any, ids: Sequence[int]) -> Any:
    """Log-softmax over the whole vocabulary at every position (length, vocabulary), float32; no padding."""
    import torch

    logits = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)


def _top(logprobs: Any) -> TopLogprobs:
    """Equal values by token id, so that the order does not depend on the sorting."""
    values, tokens = logprobs.topk(min(TOP_REFERENCE, logprobs.shape[-1]))
    pairs = zip(tokens.tolist(), values.tolist(), strict=True)
    rounded = [(int(token), round(float(value), _DECIMALS)) for token, value in pairs]
    return tuple(sorted(rounded, key=lambda pair: (-pair[1], pair[0])))
