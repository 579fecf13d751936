"""A merged base answers as its adapter did, and is a base like any other."""

import json
from pathlib import Path
from typing import Any

import pytest

from registry.bases import describe
from registry.models import Base
from tests.unit.trainer.test_lora_options import adapter
from trainer.errors import MergeRefused
from trainer.learning.base import load_model, load_tokenizer, surroundings, with_adapter
from trainer.learning.contract import check_contract, make_contract
from trainer.learning.merge import merge
from trainer.recipes import LoraSettings


@pytest.fixture(scope="module")
def learned(base_folder: Path, base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lora = LoraSettings(rank=4, rslora=True, alpha_pattern={"q_proj": 32}, rank_pattern={"v_proj": 8})
    return adapter(base_folder, base, tmp_path_factory.mktemp("learned"), lora)


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.tensor([[5, 40, 77, 130, 9, 260]])).logits


def test_merged_weights_give_the_adapters_logits(base_folder: Path, learned: Path, tmp_path: Path) -> None:
    import torch

    out = merge(base_folder, learned, tmp_path / "merged")
    with surroundings(seed=0):
        bare, adapted = (
            logits(load_model(base_folder)),
            logits(with_adapter(load_model(base_folder), learned)),
        )
    assert float((adapted - bare).abs().max()) > 1e-3  # else nothing would be proven
    assert float((logits(load_model(out)) - adapted).abs().max()) <= 1e-5

    half = merge(base_folder, learned, tmp_path / "half", precision="bfloat16")
    saved = load_model(half).state_dict()
    for name, weight in load_model(out).state_dict().items():
        assert torch.equal(saved[name], weight.to(torch.bfloat16).to(torch.float32)), name
    sizes = [sum(path.stat().st_size for path in one.glob("*.safetensors")) for one in (out, half)]
    assert sizes[1] < 0.6 * sizes[0]


def test_it_is_a_base_with_the_tokenizer_and_template_of_its_base(
    base_folder: Path, base: Base, learned: Path, tmp_path: Path
) -> None:
    out = merge(base_folder, learned, tmp_path / "merged")
    described = describe(out, name="merged", revision="local")
    assert described.tokenizer == base.tokenizer
    assert described.chat_template == base.chat_template
    assert described.modules == base.modules
    assert described.weights != base.weights
    check_contract(make_contract(described.identity(), out), out)
    assert load_tokenizer(out).chat_template == load_tokenizer(base_folder).chat_template
    assert json.loads((out / "config.json").read_text())["model_type"] == "qwen3"
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}
    assert not list(out.glob("adapter*"))
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_overwritten_and_nothing_broken_is_written(
    base_folder: Path, learned: Path, tmp_path: Path
) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    (tmp_path / "there").mkdir()
    with pytest.raises(MergeRefused, match="exists already"):
        merge(base_folder, learned, tmp_path / "there")
    broken = shutil.copytree(learned, tmp_path / "broken")
    tensors = load_file(broken / "adapter_model.safetensors")
    next(iter(tensors.values()))[:] = float("inf")
    save_file(tensors, broken / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MergeRefused, match="not finite"):
        merge(base_folder, broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()
