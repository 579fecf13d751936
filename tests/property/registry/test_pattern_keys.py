"""A pattern's key means on an engine what it meant at intake: vLLM matches with ``regex``, PEFT and we with
``re``. Were they to differ, an adapter would be loaded at a scale that nobody has checked (D12). And neither
is ever long at it: they hold the interpreter meanwhile, and nothing interrupts them."""

import json
import re

import regex
from hypothesis import example, given
from hypothesis import strategies as st

from registry import adapter_config
from registry.adapter_config import AdapterConfig
from registry.errors import AdapterConfigInvalid

PIECES = [
    *"ijkq0159._-*+?|()^$[]{}<=\\:",
    "proj",
    "layers",
    "self_attn",
    r"\d",
    r"\.",
    "[0-9]",
    "[0--]",
    "{e}",
    "(?i)",
    "||",
    ")|(",
]
MODULES = [
    f"model.layers.{layer}.{name}"
    for layer in (0, 1, 10)
    for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj")
]
STEPS = 524288


def accepted(*keys: str) -> AdapterConfig | None:
    """Warnings are errors here: a key that raises one would do so in every engine."""
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "k_proj", "gate_proj"],
        "rank_pattern": dict.fromkeys(keys, 2),
    }
    try:
        return adapter_config.parse(json.dumps(config).encode(), max_rank=None)
    except AdapterConfigInvalid:
        return None


@example("q_proj{e}")
@example("[[:alpha:]]_proj")
@example("[0--]")
@example("(q|k)_proj")
@example("a)|(k_proj")
@example("?(1)q_proj|k_proj")
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
def test_an_accepted_key_matches_alike_in_both_libraries_and_only_whole_ends_of_names(key: str) -> None:
    if (parsed := accepted(key)) is None:
        return
    for module in MODULES:
        there = 2 if regex.match(rf"(.*\.)?({key})$", module) else 4
        assert parsed.rank_of(module) == there, module
        starts = [0, *(dot.end() for dot in re.finditer(r"\.", module))]
        whole = any(re.compile(key).fullmatch(module, start) for start in starts)
        assert (there == 2) == whole, module


Key = tuple[str, int]
"""With the ways in which it can be tried on a name, by how it was built."""


def one_after_the_other(parts: list[Key]) -> Key:
    text, ways = "", 1
    for part, more in parts:
        text, ways = text + part, ways * more
    return text, ways


def alternatives(parts: list[Key]) -> Key:
    return f"({'|'.join(text for text, _ in parts)})", sum(ways for _, ways in parts)


KEYS = st.recursive(
    st.sampled_from([("q_proj", 1), (".", 1), (r"\d", 1), ("[0-9]", 1), ("", 1), (".*", 32), ("[a-z]+", 32)]),
    lambda key: (
        st.lists(key, min_size=2, max_size=6).map(alternatives)
        | st.lists(key, min_size=1, max_size=6).map(one_after_the_other)
    ),
    max_leaves=30,
).filter(lambda key: 0 < len(key[0]) <= 256)


@example([("(|.)" * 10, 1024)])
@example([("(|.)" * 11, 2048)])
@example([(".*.*" + "." * 252, 1024)])
@given(st.lists(KEYS, min_size=1, max_size=4, unique_by=lambda key: key[0]))
def test_keys_are_accepted_when_they_match_in_few_steps_together(keys: list[Key]) -> None:
    few = sum(len(text) * ways * (1 + text.count("(")) for text, ways in keys) <= STEPS
    assert (accepted(*(text for text, _ in keys)) is not None) == few
