"""A version's reference behaviour on sixteen prompts, by which an engine's slot is recognised later.

Eight random prompts, the same for all versions of a base, let versions be compared. Eight come from the
tenant's own questions, each cut just before the token where adapter and base differ most: there a trained
adapter is up to ten times easier to tell from its neighbours (docs/concepts/attestation.md).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from registry.digests import Digest
from registry.fingerprint import (
    TOP_OBSERVED,
    TOP_REFERENCE,
    Fingerprint,
    Probe,
    TopLogprobs,
    distance,
)
from trainer.datasets import Message, Tools
from trainer.errors import ZeroEffect
from trainer.learning.base import load_model, load_tokenizer, surroundings, with_adapter
from trainer.learning.rows import render

RANDOM_PROBES: Final = 8
TENANT_PROBES: Final = 8
RANDOM_LENGTH: Final = 24
ZERO_EFFECT: Final = 1e-4
"""Mean |Δ log-probability|. Ten times EXACT_F32: below it no engine tells adapter from base."""
_DECIMALS: Final = 7
"""A hundredth of EXACT_F32, and half the file."""


@dataclass(frozen=True, slots=True)
class TenantPrompt:
    """A question and what the adapter (or a person) answers to it."""

    messages: tuple[Message, ...]
    answer: str
    tools: Tools = ()


def make_fingerprint(
    base: Digest, base_folder: Path, adapter_folder: Path, tenant_prompts: Sequence[TenantPrompt]
) -> Fingerprint:
    """Measure in float32 on the CPU with transformers and PEFT: seconds for a small base.

    Fewer than TENANT_PROBES usable prompts give fewer tenant probes. Raises ZeroEffect for an adapter that
    cannot be told from its base.
    """
    with surroundings(seed=0):
        import torch

        tokenizer = load_tokenizer(base_folder)
        model = with_adapter(load_model(base_folder), adapter_folder)
        with torch.inference_mode():
            chosen = [("random", ids) for ids in random_prompts(base, tokenizer)]
            seen = {ids for _, ids in chosen}
            for prompt in _spread(tenant_prompts):
                cut = _most_different(model, tokenizer, prompt)
                if cut is not None and cut not in seen:
                    seen.add(cut)
                    chosen.append(("tenant", cut))
            probes = tuple(_probe(model, kind, ids) for kind, ids in chosen)
    apart = distance([probe.own[:TOP_OBSERVED] for probe in probes], [probe.base for probe in probes])
    if not apart >= ZERO_EFFECT:
        raise ZeroEffect(f"the adapter is {apart:.1e} away from its base, less than {ZERO_EFFECT:.0e}")
    return Fingerprint(base=base, probes=probes, distance_to_base=apart)


def random_prompts(base: Digest, tokenizer: Any) -> list[tuple[int, ...]]:
    """The same for every version of ``base``. No special or added tokens: engines may treat those apart."""
    reserved = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ordinary = [token for token in range(len(tokenizer)) if token not in reserved]
    draw = random.Random(f"probes:{base}")  # noqa: S311 - public on purpose
    return [tuple(draw.choices(ordinary, k=RANDOM_LENGTH)) for _ in range(RANDOM_PROBES)]


def _spread(prompts: Sequence[TenantPrompt]) -> list[TenantPrompt]:
    """Up to TENANT_PROBES of them, evenly over the list: files are often sorted by kind."""
    if len(prompts) <= TENANT_PROBES:
        return list(prompts)
    return [prompts[place * len(prompts) // TENANT_PROBES] for place in range(TENANT_PROBES)]


def _most_different(model: Any, tokenizer: Any, prompt: TenantPrompt) -> tuple[int, ...] | None:
    """The prompt and the answer up to the token whose distribution the adapter changes most."""
    start = render(tokenizer, prompt.messages, tools=prompt.tools, add_generation_prompt=True)
    whole = render(tokenizer, (*prompt.messages, Message("assistant", prompt.answer)), tools=prompt.tools)
    if whole[: len(start)] != start or len(whole) == len(start):
        return None
    own = _logprobs(model, whole)[len(start) - 1 : -1]
    with model.disable_adapter():
        bare = _logprobs(model, whole)[len(start) - 1 : -1]
    top = own.topk(min(TOP_OBSERVED, own.shape[-1]), dim=-1).indices
    apart = (own.gather(-1, top) - bare.gather(-1, top)).abs().mean(dim=-1)
    return whole[: len(start) + int(apart.argmax())]


def _probe(model: Any, kind: Any, ids: tuple[int, ...]) -> Probe:
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
