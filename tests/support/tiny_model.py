"""A base that transformers can really load and train, small enough for unit tests (about 20,000 weights)."""

import json
from pathlib import Path
from typing import Any

RECIPE = """\
kind: tenon.recipe/v1
tenant: bank_a
adapter: assistant
base: tiny
method: sft
seed: 7
data: {train: train.jsonl, evaluation: cases.jsonl}
lora: {rank: 4, alpha: 8, targets: all-linear}
sft: {steps: 6, batch_size: 4, learning_rate: 1.0e-2, max_length: 120, warmup_steps: 1}
evaluation: {max_new_tokens: 12, schema: schema.json, batch_size: 3}
gate: {rules: [{metric: policy, at_least: 0.9, over_base: 0.2}]}
"""


def conversation(number: int) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": f"Pay {number}.50 EUR to Norvik"},
            {"role": "assistant", "content": f'{{"amount":"{number}.50"}}'},
        ]
    }


def case(number: int) -> dict[str, Any]:
    return {
        "id": f"case-{number}",
        "messages": [{"role": "user", "content": f"Transfer {number}.50 EUR to Norvik"}],
        "facts": {"amount": f"{number}.50"},
        "expect": {"type": "object", "required": ["amount"]},
        "tags": ["odd" if number % 2 else "even"],
    }


def write_tiny_base(folder: Path) -> None:
    """A Qwen3 with random weights, a real tokenizer and the demo's chat template."""
    from trainer.learning import pretraining

    rows = [conversation(number) for number in range(40)]
    shape = pretraining.Shape(
        vocabulary=320,
        hidden=32,
        layers=2,
        heads=2,
        key_value_heads=1,
        head_size=16,
        feed_forward=64,
        context=128,
    )
    tokenizer = pretraining.train_tokenizer(rows, vocabulary=shape.vocabulary, context=shape.context)
    schedule = pretraining.Schedule(steps=1, batch=2)
    model = pretraining.pretrain(rows, tokenizer, seed=3, shape=shape, schedule=schedule)
    pretraining.write_base(model, tokenizer, folder)


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """A recipe, its data and its schema; returns the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "train.jsonl", [conversation(number) for number in range(24)])
    write_jsonl(folder / "cases.jsonl", [case(number) for number in range(7)])
    (folder / "schema.json").write_text('{"type":"object"}')
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
