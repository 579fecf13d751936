"""A pattern's key means on an engine what it meant at intake: vLLM matches with ``regex``, PEFT and we with
``re``. Were they to differ, an adapter would be loaded at a scale that nobody has checked (D12)."""

import json

import regex
from hypothesis import example, given
from hypothesis import strategies as st

from registry import adapter_config
from registry.errors import AdapterConfigInvalid

PIECES = [
    *"ijkq0159._-*+?|()^$[]{}<=\\:",
    "proj",
    "layers",
    "self_attn",
    r"\d",
    r"\.",
    "[0-9]",
    "{e}",
    "(?i)",
    "||",
]
MODULES = [
    f"model.layers.{layer}.{name}"
    for layer in (0, 1, 10)
    for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj")
]


@example("q_proj{e}")
@example("[[:alpha:]]_proj")
@example("(q|k)_proj")
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
def test_an_accepted_key_matches_alike_in_both_libraries(key: str) -> None:
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "k_proj", "gate_proj"],
        "rank_pattern": {key: 2},
    }
    try:
        parsed = adapter_config.parse(json.dumps(config).encode(), max_rank=None)
    except AdapterConfigInvalid:
        return
    for module in MODULES:
        there = 2 if regex.match(rf"(.*\.)?({key})$", module) else 4
        assert parsed.rank_of(module) == there, module
