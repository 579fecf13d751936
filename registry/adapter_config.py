"""PEFT's ``adapter_config.json``, reduced to the plain LoRA that vLLM serves as PEFT trained it.

Closed world: a setting that this module does not know and that is switched on is refused, because a newer
PEFT may mean by it something that an engine ignores.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from registry import canonical
from registry.bases import TARGETS
from registry.digests import Digest
from registry.errors import (
    AdapterConfigInvalid,
    AdapterRankTooHigh,
    AdapterUnsupported,
    InvalidDigest,
    InvalidDocument,
)

_NEUTRAL = frozenset({
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform", "lora_dropout", "megatron_core", "peft_version", "qalora_group_size", "revision",
})  # fmt: skip
"""Settings that do not change what the stored weights do. The base is a path here: never an identity."""
_READ = frozenset({
    "alpha_pattern", "bias", "init_lora_weights", "lora_alpha", "peft_type", "r", "rank_pattern",
    "target_modules", "task_type", "tenon_base", "use_rslora",
})  # fmt: skip
_PLAIN_INITS = ("gaussian", "orthogonal")
"""The other named ones (pissa, olora, corda, loftq, eva …) change the base or need a conversion first."""
_MAX_PATTERN = 256
_MAX_PATTERNS = 4096
_MAX_REPEATS = 16
_SIMPLE = re.compile(r"(?:[A-Za-z0-9_.*+?|()^$-]|\\[.d]|\[[A-Za-z0-9_-]+\])+")
"""What PEFT's ``re`` and vLLM's ``regex`` read alike: to ``regex``, braces say how far off a match may be
(``q_proj{e}``), which would give a module another scale on the engine than here."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    rank: int
    alpha: float
    rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    targets: tuple[str, ...] | None
    """Module suffixes; None when the adapter names them by an expression (then only the tensors tell)."""
    partial: bool
    """Whether some layers are left out on purpose, so that targets alone do not say what must be there."""
    base: Digest | None
    """``tenon_base``, written by our trainer."""

    def rank_of(self, module: str) -> int:
        return _lookup(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        rank = self.rank_of(module)
        return _lookup(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)

    @property
    def max_rank(self) -> int:
        """As vLLM counts it: every pattern, whether or not a module uses it."""
        return max([self.rank, *self.rank_pattern.values()])


def parse(data: bytes, *, max_rank: int | None) -> AdapterConfig:
    """``max_rank`` None: any. Raises AdapterConfigInvalid, AdapterUnsupported, AdapterRankTooHigh."""
    try:
        config = canonical.decode(data)
    except InvalidDocument as error:
        raise AdapterConfigInvalid(f"adapter_config.json is {error.message}") from None
    if not isinstance(config, dict):
        raise AdapterConfigInvalid("adapter_config.json is not a JSON object")
    _refuse_other_methods(config)
    parsed = AdapterConfig(
        rank=_rank(config.get("r"), "r"),
        alpha=_alpha(config.get("lora_alpha"), "lora_alpha"),
        rslora=_flag(config, "use_rslora"),
        rank_pattern={key: _rank(value, "rank_pattern") for key, value in _patterns(config, "rank_pattern")},
        alpha_pattern={
            key: _alpha(value, "alpha_pattern") for key, value in _patterns(config, "alpha_pattern")
        },
        targets=_targets(config.get("target_modules")),
        partial=any(config.get(key) is not None for key in ("layers_to_transform", "exclude_modules")),
        base=_base(config.get("tenon_base")),
    )
    if max_rank is not None and parsed.max_rank > max_rank:
        raise AdapterRankTooHigh(
            f"rank {parsed.max_rank}, the highest allowed is {max_rank}",
            rank=parsed.max_rank,
            allowed=max_rank,
        )
    return parsed


def _refuse_other_methods(config: Mapping[str, Any]) -> None:
    for key, wanted in (("peft_type", "LORA"), ("task_type", "CAUSAL_LM")):
        if config.get(key) != wanted:
            raise AdapterUnsupported(f"{key} must be {wanted!r}, not {_shown(config.get(key))}")
    if config.get("bias", "none") != "none":
        raise AdapterUnsupported(f"bias must be 'none', not {_shown(config.get('bias'))}")
    init = config.get("init_lora_weights", True)
    if not isinstance(init, bool) and init not in _PLAIN_INITS:
        raise AdapterUnsupported(f"init_lora_weights {_shown(init)} is not a plain initialisation")
    for key in sorted(set(config) - _NEUTRAL - _READ):
        if config[key]:
            raise AdapterUnsupported(f"{_shown(key)} is switched on, and no engine serves it", setting=key)


def _targets(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, str) and 0 < len(value) <= 4096:
        return None  # never evaluated here: it may be any regular expression
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise AdapterConfigInvalid("target_modules must be a list of module names, or an expression")
    for item in value:
        if item.rpartition(".")[2] not in TARGETS:
            raise AdapterUnsupported(f"target_modules has {_shown(item)}; served are {', '.join(TARGETS)}")
    return tuple(value)


def _patterns(config: Mapping[str, Any], field: str) -> list[tuple[str, Any]]:
    value = config.get(field) or {}
    if not isinstance(value, dict) or len(value) > _MAX_PATTERNS:
        raise AdapterConfigInvalid(f"{field} must be a map of at most {_MAX_PATTERNS} module names")
    for key in value:
        if (fault := pattern_fault(key)) is not None:
            raise AdapterConfigInvalid(f"{field} has {_shown(key)}: {fault}")
    if sum(map(_repeats, value)) > _MAX_REPEATS:
        raise AdapterConfigInvalid(
            f"{field} repeats more than {_MAX_REPEATS} times: name the modules instead"
        )
    return list(value.items())


def pattern_fault(key: str) -> str | None:
    """What is wrong with a key of ``rank_pattern`` or ``alpha_pattern``; None when it means the same
    everywhere and is matched in bounded time.

    It is a regular expression from a stranger, and every engine evaluates it once a module. So: few
    characters mean anything, nothing repeated that is a group, no look-around, at most two repetitions.
    """
    simple = len(key) <= _MAX_PATTERN and _repeats(key) <= 2 and _SIMPLE.fullmatch(key)
    if not simple or re.search(r"\)[*+?]|\(\?", key):
        return "name the module, or use a simple expression"
    try:
        re.compile(f"(.*\\.)?({key})$")
    except (re.error, OverflowError, RecursionError):
        return "not a regular expression"
    return None


def _repeats(key: str) -> int:
    return sum(map(key.count, "*+?"))


def _lookup(patterns: Mapping[str, _T], module: str, default: _T) -> _T:
    """PEFT's and vLLM's rule: a key matches the whole name, or its end from a dot on; the first one wins."""
    for key, value in patterns.items():
        if re.match(f"(.*\\.)?({key})$", module):
            return value
    return default


def _rank(value: Any, field: str) -> int:
    if type(value) is not int or value < 1:
        raise AdapterConfigInvalid(f"{field} needs a rank, a whole number from 1 on, not {_shown(value)}")
    return value


def _alpha(value: Any, field: str) -> float:
    if type(value) not in (int, float) or not 0 < value <= 1e9:
        raise AdapterConfigInvalid(f"{field} needs a positive number, not {_shown(value)}")
    return float(value)


def _flag(config: Mapping[str, Any], field: str) -> bool:
    value = config.get(field) or False
    if value is not True and value is not False:
        raise AdapterConfigInvalid(f"{field} must be true or false, not {_shown(value)}")
    return value


def _base(value: Any) -> Digest | None:
    if value is None:
        return None
    try:
        return Digest(value)
    except InvalidDigest:
        raise AdapterConfigInvalid(f"tenon_base must be a digest, not {_shown(value)}") from None


def _shown(value: Any) -> str:
    return ascii(value)[:80]
