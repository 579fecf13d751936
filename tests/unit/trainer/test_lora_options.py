"""What an adapter may look like, and that a quantized base teaches it the right thing."""

import json
from pathlib import Path
from typing import Any

import pytest

from registry.intake import inspect
from registry.models import Base
from tests.unit.trainer.test_learning import ROWS
from trainer.learning.job import Job
from trainer.learning.sft import learn
from trainer.package import package
from trainer.recipes import LoraSettings, SftSettings

SFT = SftSettings(steps=2, batch_size=4, learning_rate=0.02, max_length=120)


def adapter(base_folder: Path, base: Base, place: Path, lora: LoraSettings) -> Path:
    """Trained for two steps and packaged."""
    job: Job[Any, Any] = Job(
        settings=SFT, rows=ROWS, file="t", base_folder=base_folder, lora=lora, seed=3,
        out=place / "raw", scratch=place / "scratch",
    )  # fmt: skip
    package(learn(job).folder, place / "adapter", base=base.identity(), base_name=base.name)
    return place / "adapter"


@pytest.mark.parametrize(
    ("lora", "modules", "largest"),
    [
        (LoraSettings.model_validate({"rank": 4, "targets": "attention"}), 2 * 4, 4),
        (LoraSettings.model_validate({"rank": 4, "targets": "mlp"}), 2 * 3, 4),
        (LoraSettings(rank=4, rslora=True), 2 * 7, 4),
        (LoraSettings(rank=4, rank_pattern={"v_proj": 8, "layers.0.self_attn.q_proj": 2}), 2 * 7, 8),
        (LoraSettings(rank=4, alpha_pattern={"q_proj": 32}), 2 * 7, 4),
    ],
    ids=["attention", "mlp", "rslora", "rank_pattern", "alpha_pattern"],
)  # fmt: skip
def test_every_shape_that_a_recipe_may_ask_for_passes_intake(
    base_folder: Path, base: Base, tmp_path: Path, lora: LoraSettings, modules: int, largest: int
) -> None:
    from safetensors import safe_open

    made = adapter(base_folder, base, tmp_path, lora)
    shape, _ = inspect(made, base=base)
    assert shape.rank == largest == lora.largest_rank
    assert shape.rslora is lora.rslora
    with safe_open(made / "adapter_model.safetensors", framework="pt") as tensors:
        names = [name for name in tensors.keys() if "lora_A" in name]  # noqa: SIM118 - not a mapping
        assert len(names) == modules
        ranks = {name: tensors.get_slice(name).get_shape()[0] for name in names}
    for name, rank in ranks.items():
        wanted = next((r for key, r in lora.rank_pattern.items() if f"{key}.lora_A" in name), lora.rank)
        assert rank == wanted
    config = json.loads((made / "adapter_config.json").read_text())
    assert config.get("alpha_pattern", {}) == lora.alpha_pattern


def test_gradients_through_nf4_are_those_of_the_dequantised_base(base_folder: Path) -> None:
    """QLoRA computes with 4-bit weights; its gradients must be what the same weights give in float32.

    The reference writes bitsandbytes' own dequantised matrices into an ordinary base. Agreement says that the
    CPU kernels multiply, and differentiate, what they dequantise.
    """
    import bitsandbytes
    import torch
    from peft import get_peft_model

    from trainer.learning.base import load_model, load_tokenizer, quantized_model
    from trainer.learning.lora import lora_config
    from trainer.learning.rows import IGNORED, make_rows

    quantized = quantized_model(base_folder, device="cpu")
    reference = load_model(base_folder)
    replaced = 0
    for name, module in quantized.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            own = reference.get_submodule(name).weight
            assert not torch.equal(own, weight)  # else nothing was quantized
            own.data.copy_(weight)
            replaced += 1
    assert replaced == 2 * 7
    from trainer.datasets import examples

    rows = make_rows(load_tokenizer(base_folder), examples(ROWS[:4]), max_length=120, file="t")
    gradients = []
    for model in (quantized, reference):
        torch.manual_seed(0)
        adapted = get_peft_model(model.train(), lora_config(LoraSettings(rank=4))).train()
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:  # zero at the start, where A has no gradient at all
                    parameter.copy_(torch.randn(parameter.shape) * 0.05)
        loss = sum(
            torch.nn.functional.cross_entropy(
                adapted(torch.tensor([row.input_ids]), use_cache=False).logits[0, :-1].float(),
                torch.tensor(row.labels[1:]), ignore_index=IGNORED,
            )
            for row in rows
        )  # fmt: skip
        loss.backward()
        gradients.append(
            {name: p.grad.clone() for name, p in adapted.named_parameters() if p.grad is not None}
        )
    assert set(gradients[0]) == set(gradients[1])
    assert len(gradients[0]) == 2 * 7 * 2
    for name, found in gradients[0].items():
        expected = gradients[1][name]
        assert float((found - expected).norm() / expected.norm()) < 1e-3, name


def test_an_adapter_learned_on_a_quantized_base_is_an_ordinary_one(
    base_folder: Path, base: Base, tmp_path: Path
) -> None:
    made = adapter(base_folder, base, tmp_path, LoraSettings(rank=4, quantization="nf4"))
    shape, files = inspect(made, base=base)
    assert shape.rank == 4
    assert [path.name for path in files] == ["adapter_config.json", "adapter_model.safetensors"]


def test_a_group_of_layers_is_spelt_out_and_so_is_its_identity() -> None:
    attention = LoraSettings.model_validate({"targets": "attention"})
    spelt = LoraSettings.model_validate({"targets": ["o_proj", "v_proj", "k_proj", "q_proj"]})
    assert attention.identity() == spelt.identity()
