"""The estimate counts what it can count exactly, and grows with what makes a training larger."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.bases import describe
from registry.models import Base
from server.demo.build_base import SHIPPED_BASE
from tests.support.tiny_model import write_recipe
from trainer.inputs import ModelInput
from trainer.memory import Estimate, estimate, in_words, lora_parameters, parameters
from trainer.plan import Planned, make_plan
from trainer.recipes import LoraSettings, load_recipe
from trainer.scale import Scale
from trainer.testing import InMemoryCatalog

LORAS = [
    LoraSettings(rank=8),
    LoraSettings.model_validate({"rank": 4, "targets": "attention"}),
    LoraSettings.model_validate({"rank": 4, "targets": "mlp"}),
    LoraSettings(rank=4, rank_pattern={"v_proj": 16, "layers.0.self_attn.q_proj": 2}),
]


@pytest.fixture
def planned(catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path) -> Planned:
    return make_plan(load_recipe(write_recipe(tmp_path)), catalog=catalog, base_folder=base_folder)


def changed(planned: Planned, *, lora: LoraSettings | None = None, **settings: Any) -> Planned:
    plan = planned.plan.model_copy(
        update={
            "settings": planned.plan.settings.model_copy(update=settings),
            "lora": lora or planned.plan.lora,
        }
    )
    return replace(planned, plan=plan)


@pytest.mark.parametrize("lora", LORAS, ids=["all", "attention", "mlp", "patterns"])
def test_adapters_are_counted_as_peft_makes_them(base_folder: Path, base: Base, lora: LoraSettings) -> None:
    from peft import get_peft_model

    from trainer.learning.base import load_model
    from trainer.learning.lora import lora_config

    made = get_peft_model(load_model(base_folder), lora_config(lora))
    assert lora_parameters(lora, base.modules) == made.get_nb_trainable_parameters()[0]


def test_the_demos_weights_are_counted_as_transformers_loads_them() -> None:
    from trainer.learning.base import load_model

    assert parameters(SHIPPED_BASE) == load_model(SHIPPED_BASE).num_parameters() == 1_820_608
    base = describe(SHIPPED_BASE, name="demo", revision="local")
    assert lora_parameters(LoraSettings(rank=8), base.modules) == 110_592


def test_more_at_once_needs_more_and_a_longer_training_does_not(planned: Planned, base_folder: Path) -> None:
    def total(**settings: Any) -> int:
        return estimate(changed(planned, **settings), base_folder, on_gpu=False).total

    sizes = [total(batch_size=size) for size in (1, 2, 8, 64)]
    assert sizes == sorted(set(sizes))
    lengths = [total(max_length=length) for length in (32, 64, 512)]
    assert lengths == sorted(set(lengths))
    assert total(steps=9999) == total() == total(gradient_accumulation=8)
    ranks = [
        estimate(changed(planned, lora=LoraSettings(rank=rank)), base_folder, on_gpu=False).adapter
        for rank in (4, 8, 16)
    ]
    assert ranks == [ranks[0], 2 * ranks[0], 4 * ranks[0]]


def test_what_is_spread_sharded_halved_or_quantized_needs_less(planned: Planned, base_folder: Path) -> None:
    def of(scale: Scale | None = None, *, lora: LoraSettings | None = None, on_gpu: bool = False) -> Estimate:
        environment = planned.plan.environment | (scale or Scale()).environment()
        plan = changed(planned, lora=lora).plan.model_copy(update={"environment": environment})
        return estimate(replace(planned, plan=plan), base_folder, on_gpu=on_gpu)

    alone = of()
    assert of(Scale(2)).activations * 2 == alone.activations
    assert of(Scale(2)).base == alone.base
    assert of(Scale(2, sharded=True)).base == alone.base // 2
    assert of(on_gpu=True).base * 2 == alone.base
    assert of(lora=planned.plan.lora.model_copy(update={"quantization": "nf4"})).base < alone.base


def test_pairs_are_two_rows(planned: Planned, base_folder: Path) -> None:
    dpo = replace(planned, plan=planned.plan.model_copy(update={"method": "dpo"}))
    alone, both = (estimate(one, base_folder, on_gpu=False) for one in (planned, dpo))
    assert (both.activations, both.logits) == (2 * alone.activations, 2 * alone.logits)


def test_a_teacher_counts_with_its_own_size(planned: Planned, base_folder: Path) -> None:
    digest = planned.plan.base
    other = ModelInput(digest, digest, SHIPPED_BASE)
    start = ModelInput(digest, digest, base_folder)
    models = {"start": start, "teacher": other, "rewards[0]": start}
    both = estimate(replace(planned, models=models), base_folder, on_gpu=False)
    assert both.other_models == 4 * (1_820_608 + parameters(base_folder))
    assert estimate(planned, base_folder, on_gpu=False).other_models == 0


def test_a_base_in_pieces_is_counted_whole(base_folder: Path, tmp_path: Path) -> None:
    whole = tmp_path / "pieces"
    shutil.copytree(base_folder, whole)
    (whole / "model.safetensors").rename(whole / "model-00001-of-00002.safetensors")
    shutil.copy(whole / "model-00001-of-00002.safetensors", whole / "model-00002-of-00002.safetensors")
    assert parameters(whole) == 2 * parameters(base_folder)


def test_amounts_are_readable() -> None:
    assert [in_words(n) for n in (0, 1023, 1024, 1536 << 20, 5 << 40)] == [
        "0.0 B", "1023.0 B", "1.0 KiB", "1.5 GiB", "5.0 TiB",
    ]  # fmt: skip
