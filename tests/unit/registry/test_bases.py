import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from registry import canonical
from registry.bases import describe
from registry.digests import Digest
from registry.errors import BaseInvalid
from registry.models import Base

SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (10, 4),
    "model.layers.0.self_attn.q_proj.weight": (6, 4),
    "model.layers.0.self_attn.q_proj.bias": (6,),
    "model.layers.0.self_attn.q_norm.weight": (4,),
    "model.layers.0.mlp.down_proj.weight": (4, 8),
    "model.layers.0.mlp.experts.gate_up_proj": (2, 4, 8),
    "model.layers.0.mlp.experts.up_proj.weight": (2, 4, 8),
    "lm_head.weight": (10, 4),
}
MODULES = {"model.layers.0.self_attn.q_proj": (6, 4), "model.layers.0.mlp.down_proj": (4, 8)}


def weights(path: Path, shapes: Mapping[str, tuple[int, ...]], *, dtype: str = "BF16", size: int = 2) -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + size
        for length in shape:
            end = begin + (end - begin) * length
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


def base(folder: Path) -> Base:
    return describe(folder, name="org/model", revision="main")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type":"qwen3"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    weights(tmp_path / "model.safetensors", SHAPES)
    return tmp_path


def split(folder: Path) -> dict[str, str]:
    """The same weights as two shards and an index; returns the index."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    names = list(SHAPES)
    located: dict[str, str] = {}
    for number, part in enumerate((names[:3], names[3:]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        weights(folder / file, {name: SHAPES[name] for name in part})
        located |= dict.fromkeys(part, file)
    index(folder, located)
    return located


def index(folder: Path, located: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": located}))


def test_every_file_that_decides_behaviour_is_pinned(folder: Path) -> None:
    described = base(folder)
    assert described == Base(
        name="org/model",
        revision="main",
        config=Digest.of(b'{"model_type":"qwen3"}'),
        weights=Digest.of_file(folder / "model.safetensors"),
        tokenizer=Digest.of(b"{}"),
        chat_template=Digest.of(b"{{ messages }}"),
        modules=MODULES,
    )


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"]
)
def test_a_change_of_any_of_them_is_another_base(folder: Path, file: str) -> None:
    before = base(folder).identity()
    path = folder / file
    if file == "model.safetensors":
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    else:
        path.write_text('{"other":1}')
    assert base(folder).identity() != before


def test_shards_are_pinned_together(folder: Path) -> None:
    located = split(folder)
    described = base(folder)
    expected = {file: str(Digest.of_file(folder / file)) for file in set(located.values())}
    assert described.weights == canonical.digest_of(expected)
    assert described.modules == MODULES


def test_the_template_may_live_in_the_tokenizer_config(folder: Path) -> None:
    before = base(folder).chat_template
    (folder / "chat_template.jinja").unlink()
    for value in (
        "{{ messages }}",
        [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "{{ messages }}"}],
    ):
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
        assert base(folder).chat_template == before


@pytest.mark.parametrize(
    "value", [None, "", [], [{"name": "tool_use", "template": "x"}], [{"name": "default"}], 7]
)
def test_no_usable_template(folder: Path, value: object) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(BaseInvalid, match="no chat template"):
        base(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(BaseInvalid, match="no chat template"):
        base(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(BaseInvalid, match=file):
        base(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(BaseInvalid, match="not a folder"):
        base(tmp_path / "none")


def test_a_missing_shard_is_named(folder: Path) -> None:
    split(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BaseInvalid, match="model-00002-of-00002"):
        base(folder)


@pytest.mark.parametrize(
    "located",
    [
        None,
        [],
        {},
        {"a": 7},
        {"a": "../secret.safetensors"},
        {"a": "/x.safetensors"},
        {"a": "pytorch_model.bin"},
    ],
)
def test_an_index_that_names_no_shards(folder: Path, located: object) -> None:
    split(folder)
    index(folder, located)
    with pytest.raises(BaseInvalid, match=r"index\.json"):
        base(folder)


def test_an_index_that_disagrees_with_its_shards(folder: Path) -> None:
    located = split(folder)
    index(folder, {name: file for name, file in located.items() if "q_norm" not in name})
    with pytest.raises(BaseInvalid, match=r"disagree about '.*q_norm"):
        base(folder)
    index(folder, located | {"extra": "model-00001-of-00002.safetensors"})
    with pytest.raises(BaseInvalid, match="disagree about 'extra'"):
        base(folder)


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BaseInvalid, match="ends inside its data"):
        base(folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map":{"a":"b","a":"c"}}'])
def test_a_broken_index(folder: Path, text: str) -> None:
    split(folder)
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(BaseInvalid, match=r"index\.json is not"):
        base(folder)


def test_packed_weights_do_not_show_their_shape(folder: Path) -> None:
    weights(folder / "model.safetensors", SHAPES, dtype="U8", size=1)
    with pytest.raises(BaseInvalid, match="U8") as caught:
        base(folder)
    assert "unquantised" in caught.value.advice


def test_a_model_without_layers_for_a_lora(folder: Path) -> None:
    weights(folder / "model.safetensors", {"transformer.h.0.attn.c_attn.weight": (4, 12)})
    with pytest.raises(BaseInvalid, match="no layer"):
        base(folder)


def test_torch_is_not_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "safetensors", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    assert base(folder).modules == MODULES
