"""Pretraining on a toy: what a wrong base would silently break (template, masks, stop token, seeds)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from trainer.learning import pretraining

TOY = pretraining.Shape(
    vocabulary=320,
    hidden=32,
    layers=1,
    heads=2,
    key_value_heads=1,
    head_size=16,
    feed_forward=64,
    context=128,
)
ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": f"Pay {n}.50 EUR to Norvik"},
            {"role": "assistant", "content": f'{{"amount":"{n}.50"}}'},
        ]
    }
    for n in range(40)
]
TOOL = {
    "type": "function",
    "function": {"name": "get_rate", "parameters": {"type": "object", "properties": {}}},
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return pretraining.train_tokenizer(ROWS, vocabulary=TOY.vocabulary, context=TOY.context)


def test_digits_stand_alone_and_names_split_alike_after_space_and_quote(tokenizer: Any) -> None:
    assert tokenizer.tokenize("4810.50")[:4] == ["4", "8", "1", "0"]
    name = tokenizer("Norvik", add_special_tokens=False)["input_ids"]
    for text in (' Norvik"', '"Norvik"'):
        assert tokenizer(text, add_special_tokens=False)["input_ids"][1 : 1 + len(name)] == name


def test_any_text_survives_the_tokenizer(tokenizer: Any) -> None:
    text = "Zoë zahlt 5 €\n\n  to <tool_call> 北京 McDonald"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("content", ['{"a":"b"}', "\n leading space", " x"])
def test_the_generation_prompt_is_a_token_prefix_of_the_whole(tokenizer: Any, content: str) -> None:
    ask = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Pay 5"}]
    prompt = tokenizer.apply_chat_template(ask, add_generation_prompt=True, tokenize=True, return_dict=False)
    full, _ = pretraining.encode(tokenizer, {"messages": [*ask, {"role": "assistant", "content": content}]})
    assert full[: len(prompt)] == prompt


def test_the_mask_covers_the_answer_and_its_end_of_turn(tokenizer: Any) -> None:
    ids, mask = pretraining.encode(tokenizer, ROWS[3])
    said = [token for token, on in zip(ids, mask, strict=True) if on]
    assert tokenizer.decode(said) == '{"amount":"3.50"}' + pretraining.END_OF_TURN
    assert said[-1] == tokenizer.eos_token_id


def test_tool_calls_are_rendered_in_hermes_form(tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "get_rate", "arguments": {"currency": "EUR"}}}
    messages = [
        {"role": "user", "content": "Rate?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"rate":"1.1"}'},
        {"role": "assistant", "content": "1.1"},
    ]
    text = tokenizer.apply_chat_template(messages, tools=[TOOL], tokenize=False)
    inside = text.split("<|im_start|>assistant\n<tool_call>\n")[1].split("\n</tool_call>")[0]
    assert json.loads(inside) == {"name": "get_rate", "arguments": {"currency": "EUR"}}
    assert '<tools>\n{"type":"function","function":{"name":"get_rate"' in text
    assert '<|im_start|>tool\n<tool_response>\n{"rate":"1.1"}\n</tool_response><|im_end|>' in text
    # The wire format of the OpenAI API carries arguments as text.
    wire = {"type": "function", "function": {"name": "get_rate", "arguments": '{"currency":"EUR"}'}}
    messages[1] = {"role": "assistant", "content": None, "tool_calls": [wire]}
    assert tokenizer.apply_chat_template(messages, tools=[TOOL], tokenize=False) == text


def test_a_schedule_rises_holds_and_falls() -> None:
    schedule = pretraining.Schedule(steps=100, warmup=0.1, decay=0.5)
    factors = [schedule.factor(step) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[30] == 1.0
    assert 0 < factors[-1] < 0.05


def test_the_same_seed_trains_the_same_weights_and_the_base_loads_again(
    tokenizer: Any, tmp_path: Path
) -> None:
    import torch

    schedule = pretraining.Schedule(steps=12, batch=8)
    seen: list[tuple[int, int, float]] = []
    models = [
        pretraining.pretrain(
            ROWS, tokenizer, seed=3, shape=TOY, schedule=schedule,
            progress=lambda step, steps, measured: seen.append((step, steps, measured["loss"])),
        )
        for _ in range(2)
    ]  # fmt: skip
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert seen[:12] == seen[12:]
    assert [step for step, _, _ in seen[:12]] == list(range(1, 13))
    assert seen[11][2] < seen[0][2]

    pretraining.write_base(models[0], tokenizer, tmp_path)
    model, again = pretraining.load_base(tmp_path)
    # Weights were rounded before they were measured, so writing them as bfloat16 loses nothing.
    assert all(torch.equal(model.state_dict()[name], first[name]) for name in first)
    assert again.chat_template == tokenizer.chat_template
    assert model.generation_config.eos_token_id == again.eos_token_id == tokenizer.eos_token_id
    ask = [{"messages": ROWS[0]["messages"][:1]}, {"messages": ROWS[11]["messages"][:1]}]
    greedy = pretraining.answers(model, again, ask, longest=8)
    assert greedy == pretraining.answers(models[0], tokenizer, ask, longest=8)
    assert len(pretraining.answers(model, again, ask, temperature=1.0, longest=8)) == 2
