"""PEFT's ``adapter_config.json``, reduced to the plain LoRA that vLLM serves as PEFT trained it.

Closed world: a setting that this module does not know and that is switched on is refused, because a newer
PEFT may mean by it something that an engine ignores.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
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
_MAX_KEY = 256
_MAX_KEYS = 240
"""Both maps together are below what ``re`` (512) and ``regex`` (500) keep compiled. PEFT and vLLM leave it to
them: with more keys, each would be compiled again for every module."""
_MAX_STEPS = 1 << 19
"""To match all keys of a map with one name. The worst that a search found took 1 ms in ``re`` and 2 ms in
``regex``; both maps for 224 modules, with the compiling, 0.3 s and 4 s."""
_REPEATED = 32
"""Characters that a repetition may take: what a module's name has, on average, from one of its dots on."""
_SIMPLE = re.compile(r"(?:[A-Za-z0-9_.*+?|()^$-]|\\[.d]|\[(?:[A-Za-z0-9_](?:-[A-Za-z0-9_])?)+\])+")
"""What PEFT's ``re`` and vLLM's ``regex`` read alike: to ``regex``, braces say how far off a match may be
(``q_proj{e}``), which would give a module another scale on the engine than here."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    rank: int
    alpha: float
    rslora: bool
    rank_pattern: Mapping[re.Pattern[str], int]
    alpha_pattern: Mapping[re.Pattern[str], float]
    targets: tuple[str, ...] | None
    """Module suffixes; None when the adapter names them by an expression (then only the tensors tell)."""
    partial: bool
    """Whether some layers are left out on purpose, so that targets alone do not say what must be there."""
    base: Digest | None
    """``tenon_base``, written by our trainer."""

    def rank_of(self, module: str) -> int:
        return matching(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        rank = self.rank_of(module)
        return matching(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)

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
        rank_pattern=_patterns(config, "rank_pattern", _rank),
        alpha_pattern=_patterns(config, "alpha_pattern", _alpha),
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


def _patterns(
    config: Mapping[str, Any], field: str, read: Callable[[Any, str], _T]
) -> Mapping[re.Pattern[str], _T]:
    value = config.get(field) or {}
    if not isinstance(value, dict):
        raise AdapterConfigInvalid(f"{field} must be a map of module names")
    if (fault := keys_fault(value)) is not None:
        raise AdapterConfigInvalid(f"{field} has {fault}")
    return compiled({key: read(item, field) for key, item in value.items()})


def keys_fault(keys: Collection[str]) -> str | None:
    """What is wrong with the keys of a ``rank_pattern`` or ``alpha_pattern``; None when each means the same
    to PEFT, to vLLM and here, and all together are matched with a name in milliseconds.

    They are regular expressions from a stranger, and every engine tries them on every module, in C code that
    nothing interrupts. So: few keys, few characters that mean anything, nothing repeated that is a group, no
    look-around, and few ways to match.
    """
    if len(keys) > _MAX_KEYS:
        return f"{len(keys)} keys, at most {_MAX_KEYS} are possible: let one stand for several modules"
    for key in keys:
        if (fault := _key_fault(key)) is not None:
            return f"{_shown(key)}: {fault}"
    # A way has at most a step for each character, and a step may copy what every group has matched.
    steps = {key: len(key) * _ways(key) * (1 + key.count("(")) for key in keys}
    if sum(steps.values()) > _MAX_STEPS:
        return (
            f"{_shown(max(steps, key=steps.__getitem__))}: too many ways to match, all keys may take "
            f"{_MAX_STEPS} steps together: name the modules, or use fewer of * + ? | ( )"
        )
    return None


def _key_fault(key: str) -> str | None:
    if len(key) > _MAX_KEY:
        return f"{len(key)} characters, at most {_MAX_KEY} are possible: name the modules"
    if not _SIMPLE.fullmatch(key) or re.search(r"\)[*+?]|\(\?", key):
        return r"name the module, or use a simple expression: names, . * + ? | ( ) ^ $ \. \d, sets like [0-9]"
    try:
        re.compile(key)  # alone: "a)|(b" is an expression only between the parentheses that it closes
    except (re.error, RecursionError) as error:
        return f"not a regular expression ({error}): name the module"
    return None


def _ways(key: str) -> int:
    """In how many ways it can be tried on a name: those of alternatives add up, of what follows multiply."""
    outer: list[tuple[int, int]] = []
    before, here = 0, 1
    for char in key:
        if char == "(":
            outer.append((before, here))
            before, here = 0, 1
        elif char == "|":
            before, here = before + here, 1
        elif char == ")":
            inside = before + here
            before, here = outer.pop()
            here *= inside
        elif char in "*+?":
            here *= _REPEATED
    return before + here


def compiled(patterns: Mapping[str, _T]) -> Mapping[re.Pattern[str], _T]:
    """For ``matching``. ``re`` itself keeps too few for the keys of two adapters at the same time."""
    return {re.compile(f"(.*\\.)?({key})$"): value for key, value in patterns.items()}


def matching(patterns: Mapping[re.Pattern[str], _T], module: str, default: _T) -> _T:
    """PEFT's and vLLM's rule: a key matches the whole name, or its end from a dot on; the first one wins."""
    return next((value for pattern, value in patterns.items() if pattern.match(module)), default)


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
