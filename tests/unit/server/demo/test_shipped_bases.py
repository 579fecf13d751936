"""What ships says of itself what the build would ask of it."""

import json

import pytest

from registry.bases import describe
from server.assembly.bases import locate
from server.demo.build_base import (
    AMOUNTS_AT_LEAST,
    FACTS_AT_LEAST,
    MAKINGS,
    SHIPPED_BASE,
    SHIPPED_STUDENT,
    VALID_JSON_AT_LEAST,
    Size,
)
from trainer.learning.pretraining import Shape


@pytest.mark.parametrize("size", ["base", "student"])
def test_a_shipped_base_has_the_shape_and_the_quality_of_its_build(size: Size) -> None:
    folder = {"base": SHIPPED_BASE, "student": SHIPPED_STUDENT}[size]
    config = json.loads((folder / "config.json").read_text())
    shape = Shape(**MAKINGS[size].shape)
    assert config["hidden_size"] == shape.hidden
    assert config["num_hidden_layers"] == shape.layers
    assert config["intermediate_size"] == shape.feed_forward
    quality = json.loads((folder / "quality.json").read_text())
    assert quality["steps"] == MAKINGS[size].steps
    for part in ("seen_phrasings", "unseen_phrasings"):
        greedy = quality["greedy"][part]
        assert greedy["valid_json"] >= VALID_JSON_AT_LEAST
        assert greedy["amount_copied"] >= AMOUNTS_AT_LEAST
        assert greedy["facts_copied"] >= FACTS_AT_LEAST


def test_the_student_is_a_base_of_its_own_with_the_tokenizer_of_the_other() -> None:
    assert locate("demo-student") == SHIPPED_STUDENT
    student, base = (describe(locate(name), name=name, revision="local") for name in ("demo-student", "demo"))
    assert student.identity() != base.identity()
    assert (student.tokenizer, student.chat_template) == (base.tokenizer, base.chat_template)
    sizes = [json.loads((folder / "quality.json").read_text())["parameters"] for folder in
             (SHIPPED_STUDENT, SHIPPED_BASE)]  # fmt: skip
    assert sizes[0] < 0.55 * sizes[1]
