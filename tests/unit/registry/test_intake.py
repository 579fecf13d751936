"""Every way an adapter folder can be wrong, each refused by its own leaf."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from registry import intake
from registry.digests import Digest
from registry.errors import (
    AdapterBaseMismatch,
    AdapterConfigInvalid,
    AdapterFileMissing,
    AdapterFileUnexpected,
    AdapterModuleUnknown,
    AdapterNotFinite,
    AdapterPickle,
    AdapterRankTooHigh,
    AdapterShapeMismatch,
    AdapterTensorsMalformed,
    AdapterTooLarge,
    AdapterUnsupported,
    AdapterZeroEffect,
    IntakeRefused,
)
from registry.models import Base

Array = npt.NDArray[Any]
CODES = {np.dtype("<f4"): "F32", np.dtype("<f2"): "F16", np.dtype("<f8"): "F64"}
LAYERS = 3


def base(*, hidden: int = 8, mlp: int = 12, layers: int = LAYERS, name: str = "tiny") -> Base:
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.v_proj": (4, hidden),
        "mlp.down_proj": (hidden, mlp),
    }
    return Base(
        name=name,
        revision="1",
        config=Digest.of(b"config"),
        weights=Digest.of(b"weights"),
        tokenizer=Digest.of(b"tokenizer"),
        chat_template=Digest.of(b"template"),
        modules={
            f"model.layers.{layer}.{module}": shape
            for layer in range(layers)
            for module, shape in shapes.items()
        },
    )


class Adapter:
    """A sound adapter on every module of a base, to be spoilt by the tests."""

    def __init__(self, folder: Path, *, on: Base | None = None, rank: int = 4) -> None:
        self.folder = folder
        random = np.random.default_rng(7)
        self.tensors: dict[str, Array] = {}
        for module, (out, into) in (on or base()).modules.items():
            self[module, "A"] = random.normal(0, 0.1, (rank, into)).astype("<f4")
            self[module, "B"] = random.normal(0, 0.1, (out, rank)).astype("<f4")
        self.config: dict[str, Any] = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": "a/path/that/says/nothing",
            "r": rank,
            "lora_alpha": 16,
            "target_modules": ["q_proj", "v_proj", "down_proj"],
            "bias": "none",
            "use_dora": False,
            "modules_to_save": None,
            "init_lora_weights": True,
            "peft_version": "0.21.2",
            "inference_mode": True,
        }

    def __getitem__(self, key: tuple[str, str]) -> Array:
        return self.tensors[f"base_model.model.{key[0]}.lora_{key[1]}.weight"]

    def __setitem__(self, key: tuple[str, str], value: Array) -> None:
        self.tensors[f"base_model.model.{key[0]}.lora_{key[1]}.weight"] = value

    def write(self) -> Path:
        (self.folder / intake.CONFIG).write_text(json.dumps(self.config))
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        data = b""
        for name, tensor in self.tensors.items():
            end = len(data) + tensor.nbytes
            header[name] = {
                "dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [len(data), end],
            }  # fmt: skip
            data += tensor.tobytes()
        text = json.dumps(header).encode()
        (self.folder / intake.WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + data)
        return self.folder

    def refused(
        self, error: type[IntakeRefused], match: str, *, on: Base | None = None, max_rank: int = 64
    ) -> None:
        with pytest.raises(error, match=match) as caught:
            intake.inspect(self.write(), base=on or base(), max_rank=max_rank)
        assert caught.type is error
        assert str(self.folder) not in caught.value.message


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    return Adapter(tmp_path)


Q0, V0, V1 = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.0.self_attn.v_proj",
    "model.layers.1.self_attn.v_proj",
)


def test_a_sound_adapter_is_described(adapter: Adapter) -> None:
    shape, files = intake.inspect(adapter.write(), base=base())
    assert (shape.rank, shape.alpha, shape.rslora) == (4, 16.0, False)
    assert shape.targets == ("down_proj", "q_proj", "v_proj")
    assert [path.name for path in files] == ["adapter_config.json", "adapter_model.safetensors"]


def test_companions_of_an_adapter_are_ignored_and_not_stored(adapter: Adapter) -> None:
    for name in (
        "README.md",
        "tokenizer.json",
        "chat_template.jinja",
        "special_tokens_map.json",
        "merges.txt",
    ):
        (adapter.folder / name).write_bytes(b"\x80\x04anything")
    _, files = intake.inspect(adapter.write(), base=base())
    assert len(files) == 2


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("name", [intake.CONFIG, intake.WEIGHTS])
def test_a_file_is_missing(adapter: Adapter, name: str) -> None:
    (adapter.write() / name).unlink()
    with pytest.raises(AdapterFileMissing, match=name):
        intake.inspect(adapter.folder, base=base())


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(AdapterFileMissing):
        intake.inspect(tmp_path / "none", base=base())


@pytest.mark.parametrize(
    "name", ["training_args.bin", "optimizer.pt", "x.PKL", "a.npy", "b.npz", "scaler.pth"]
)
def test_pickles_are_refused_by_name(adapter: Adapter, name: str) -> None:
    (adapter.folder / name).write_bytes(b"")
    adapter.refused(AdapterPickle, name)


@pytest.mark.parametrize(
    "start", [pickle.dumps({"a": 1}), pickle.dumps([], protocol=2), b"PK\x03\x04" + bytes(60)]
)
def test_a_pickle_with_another_name_is_refused(adapter: Adapter, start: bytes) -> None:
    (adapter.write() / intake.WEIGHTS).write_bytes(start)
    with pytest.raises(AdapterPickle, match="pickle with another name"):
        intake.inspect(adapter.folder, base=base())


def test_a_second_adapter_in_ref_is_refused(adapter: Adapter) -> None:
    (adapter.folder / "ref").mkdir()
    with pytest.raises(AdapterFileUnexpected, match="'ref' is a folder") as caught:
        intake.inspect(adapter.write(), base=base())
    assert "DPO" in caught.value.advice


@pytest.mark.parametrize("name", ["model.safetensors", "run.sh", ".hidden", "adapter_model.safetensors.bak"])
def test_other_files_are_refused(adapter: Adapter, name: str) -> None:
    (adapter.folder / name).write_bytes(b"")
    adapter.refused(AdapterFileUnexpected, name)


@pytest.mark.parametrize("name", [intake.CONFIG, intake.WEIGHTS, "README.md", "other"])
def test_links_are_refused_wherever_they_point(
    adapter: Adapter, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "file"
    source = adapter.write() / name
    if source.exists():
        shutil.move(source, outside)
    (adapter.folder / name).symlink_to(outside)
    with pytest.raises(AdapterFileUnexpected, match="symbolic link"):
        intake.inspect(adapter.folder, base=base())


def test_a_pipe_does_not_block(adapter: Adapter) -> None:
    (adapter.write() / intake.CONFIG).unlink()
    os.mkfifo(adapter.folder / intake.CONFIG)
    with pytest.raises(AdapterFileUnexpected):
        intake.inspect(adapter.folder, base=base())


# --------------------------------------------------------------------------------------------------- config


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"r":4,"r":8}', '{"r":NaN}', "[" * 5000, "\udcff", " " * (1 << 20) + "{}"]
)
def test_a_config_that_is_not_strict_json(adapter: Adapter, text: str) -> None:
    (adapter.write() / intake.CONFIG).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(AdapterConfigInvalid):
        intake.inspect(adapter.folder, base=base())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("peft_type", None),
        ("task_type", "SEQ_CLS"),
        ("task_type", None),
        ("use_dora", True),
        ("bias", "lora_only"),
        ("bias", None),
        ("lora_bias", True),
        ("modules_to_save", ["score"]),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "pissa_niter_16"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "eva"),
        ("init_lora_weights", ["gaussian"]),
        ("trainable_token_indices", [1]),
        ("layer_replication", [[0, 2]]),
        ("alora_invocation_tokens", [5]),
        ("use_qalora", True),
        ("kasa_config", {"rank": 1}),
        ("velora_config", {"rank": 1}),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("fan_in_fan_out", True),
        ("a_setting_of_next_year", True),
        ("target_modules", ["q_proj", "lm_head"]),
        ("target_modules", ["model.embed_tokens"]),
    ],
)
def test_methods_that_engines_do_not_serve(adapter: Adapter, key: str, value: object) -> None:
    adapter.config[key] = value
    adapter.refused(AdapterUnsupported, key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("init_lora_weights", "gaussian"),
        ("init_lora_weights", "orthogonal"),
        ("init_lora_weights", False),
        ("a_setting_of_next_year", False),
        ("a_setting_of_next_year", None),
        ("modules_to_save", []),
        ("use_rslora", True),
        ("auto_mapping", {"base_model_class": "X"}),
        ("target_modules", r".*\.(q_proj|v_proj|down_proj)"),
        ("lora_dropout", 0.1),
        ("rank_pattern", None),
        ("alpha_pattern", {"q_proj": 32}),
        ("alpha_pattern", {f"layers.{number}.self_attn.q_proj": 32 for number in range(240)}),
        ("alpha_pattern", {"layers.0.self_attn.q_proj": 32, r"layers\.[0-3]\..*(q|k)_proj": 8}),
        ("alpha_pattern", {r".*layers\.(0|1|2|3)\.mlp\.(gate|up|down)_proj": 32, "^model.*": 8}),
        ("alpha_pattern", {f"layers.({'|'.join(map(str, range(32)))}).self_attn.[a-z]*_proj": 32}),
    ],
)
def test_settings_that_are_served(adapter: Adapter, key: str, value: object) -> None:
    adapter.config[key] = value
    intake.inspect(adapter.write(), base=base())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("r", 0),
        ("r", -4),
        ("r", True),
        ("r", 4.0),
        ("r", "4"),
        ("r", None),
        ("lora_alpha", 0),
        ("lora_alpha", -1),
        ("lora_alpha", 1e300),
        ("lora_alpha", "16"),
        ("lora_alpha", None),
        ("use_rslora", "yes"),
        ("target_modules", []),
        ("target_modules", None),
        ("target_modules", [1]),
        ("rank_pattern", ["q_proj"]),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", {"(": 4}),
        ("rank_pattern", {"(a+)+b": 4}),
        ("rank_pattern", {".*.*.*.*x": 4}),
        ("rank_pattern", {"(|.)" * 26 + "[XYZ]": 4}),
        ("rank_pattern", {"a)|(b": 4}),
        ("rank_pattern", {")|(": 4}),
        ("rank_pattern", {"?(1)q_proj|k_proj": 4}),
        ("rank_pattern", {"[0--]": 4}),
        ("rank_pattern", {"[z-a]": 4}),
        ("rank_pattern", {f"layers.{number}": 4 for number in range(241)}),
        ("rank_pattern", {"(?=q)q_proj": 4}),
        ("rank_pattern", {r"(q)\1": 4}),
        ("rank_pattern", {"q_proj{e}": 4}),
        ("rank_pattern", {"q_proj{1}": 4}),
        ("rank_pattern", {"[[:alpha:]]_proj": 4}),
        ("rank_pattern", {r"\bq_proj": 4}),
        ("rank_pattern", {f"x{number}.*y.*": 4 for number in range(70)}),
        ("alpha_pattern", {f"x{number}.*y.*": 4 for number in range(70)}),
        ("rank_pattern", {"": 4}),
        ("rank_pattern", {"q" * 300: 4}),
        ("alpha_pattern", {"q_proj": 0}),
        ("tenon_base", "sha256:12"),
        ("tenon_base", 7),
    ],
)
def test_settings_that_mean_nothing(adapter: Adapter, key: str, value: object) -> None:
    adapter.config[key] = value
    adapter.refused(AdapterConfigInvalid, key)


@pytest.mark.parametrize(
    ("keys", "advice"),
    [
        (["(q)+"], "'(q)+': name the module, or use a simple expression: names, . * +"),
        (["q" * 257], "257 characters, at most 256 are possible"),
        (["a)|(b"], "'a)|(b': not a regular expression (unbalanced parenthesis at position 1): name"),
        (
            ["q_proj", ".*.*.*.*"],
            "'.*.*.*.*': too many ways to match, all keys may take 524288 steps together: name",
        ),
        ([f"q{number}" for number in range(241)], "has 241 keys, at most 240 are possible: let one"),
    ],
)
def test_a_refused_key_is_named_with_the_limit_and_what_to_do(
    adapter: Adapter, keys: list[str], advice: str
) -> None:
    adapter.config["rank_pattern"] = dict.fromkeys(keys, 4)
    adapter.refused(AdapterConfigInvalid, re.escape(advice))


def test_the_base_that_the_trainer_wrote_down(adapter: Adapter) -> None:
    adapter.config["tenon_base"] = str(base().identity())
    intake.inspect(adapter.write(), base=base())
    adapter.config["tenon_base"] = str(base(name="other").identity())
    adapter.refused(AdapterBaseMismatch, "trained on the base sha256")


# --------------------------------------------------------------------------------------------------- shapes


def test_another_hidden_size_is_another_base(adapter: Adapter) -> None:
    adapter.refused(AdapterBaseMismatch, "tiny", on=base(hidden=16))


def test_another_feed_forward_size_is_another_base(adapter: Adapter) -> None:
    adapter.refused(AdapterBaseMismatch, "no down_proj", on=base(mlp=24))


def test_other_module_names_are_another_base(adapter: Adapter) -> None:
    adapter.tensors = {name.replace("layers", "blocks"): value for name, value in adapter.tensors.items()}
    adapter.refused(AdapterBaseMismatch, "none of its modules")


def test_more_layers_than_the_base(adapter: Adapter) -> None:
    adapter.refused(
        AdapterModuleUnknown, rf"model\.layers\.{LAYERS - 1}\..*3 unknown", on=base(layers=LAYERS - 1)
    )


def test_one_odd_tensor(adapter: Adapter) -> None:
    adapter[V1, "B"] = np.ones((5, 4), "<f4")
    adapter.refused(AdapterShapeMismatch, V1)


def test_one_odd_tensor_that_is_the_only_one_of_its_kind(tmp_path: Path) -> None:
    single = base(layers=1)
    adapter = Adapter(tmp_path, on=single)
    adapter[V0, "B"] = np.ones((5, 4), "<f4")
    adapter.refused(AdapterShapeMismatch, V0, on=single)


@pytest.mark.parametrize("shape", [(4,), (4, 8, 1), (0, 8)])
def test_what_is_not_a_matrix(adapter: Adapter, shape: tuple[int, ...]) -> None:
    adapter[Q0, "A"] = np.ones(shape, "<f4")
    adapter.refused(AdapterShapeMismatch, "not a matrix")


@pytest.mark.parametrize("side", ["A", "B"])
def test_half_a_pair(adapter: Adapter, side: str) -> None:
    del adapter.tensors[f"base_model.model.{Q0}.lora_{side}.weight"]
    adapter.refused(AdapterTensorsMalformed, Q0)


@pytest.mark.parametrize(
    "name",
    [
        "weight",
        f"{Q0}.lora_A.weight",
        f"base_model.model.{Q0}.lora_A.default.weight",
        f"base_model.model.{Q0}.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        f"base_model.model.{Q0}.lora_C.weight",
    ],
)
def test_tensors_that_are_no_lora(adapter: Adapter, name: str) -> None:
    adapter.tensors[name] = np.ones((4, 8), "<f4")
    adapter.refused(AdapterModuleUnknown, "is no lora_A or lora_B")


@pytest.mark.parametrize("suffix", ["lora_magnitude_vector", "lora_B.bias"])
def test_tensors_of_other_methods(adapter: Adapter, suffix: str) -> None:
    adapter.tensors[f"base_model.model.{Q0}.{suffix}"] = np.ones((8,), "<f4")
    adapter.refused(AdapterUnsupported, suffix)


def test_no_tensors(adapter: Adapter) -> None:
    adapter.tensors.clear()
    adapter.refused(AdapterZeroEffect, "no tensors")


def test_a_module_of_the_base_that_is_no_target(adapter: Adapter) -> None:
    extended = base().model_copy(update={"modules": base().modules | {"lm_head": (32, 8)}})
    adapter["lm_head", "A"], adapter["lm_head", "B"] = np.ones((4, 8), "<f4"), np.ones((32, 4), "<f4")
    adapter.config["target_modules"] = ".*"
    adapter.refused(AdapterUnsupported, "lm_head", on=extended)


def test_targets_and_tensors_must_agree(adapter: Adapter) -> None:
    adapter.config["target_modules"] = ["q_proj", "down_proj"]
    adapter.refused(AdapterConfigInvalid, "v_proj has tensors")
    adapter.config["target_modules"] = ["q_proj", "v_proj", "down_proj"]
    for side in "AB":
        del adapter.tensors[f"base_model.model.{V1}.lora_{side}.weight"]
    adapter.refused(AdapterConfigInvalid, f"{V1} is among target_modules and has no tensors")
    adapter.config["layers_to_transform"] = [0, 2]
    intake.inspect(adapter.write(), base=base())


def test_full_names_as_targets(adapter: Adapter) -> None:
    adapter.tensors = {name: value for name, value in adapter.tensors.items() if Q0 in name}
    adapter.config["target_modules"] = [Q0]
    shape, _ = intake.inspect(adapter.write(), base=base())
    assert shape.targets == ("q_proj",)


# ---------------------------------------------------------------------------------------------------- ranks


def test_a_rank_that_was_changed_afterwards(adapter: Adapter) -> None:
    adapter.config["r"] = 8
    adapter.refused(AdapterShapeMismatch, "config says rank 8, lora_A has 4")


def test_the_highest_rank(adapter: Adapter) -> None:
    intake.inspect(adapter.write(), base=base(), max_rank=4)
    adapter.refused(AdapterRankTooHigh, "rank 4, the highest allowed is 3", max_rank=3)
    adapter.config["rank_pattern"] = {"no_such_module": 65}
    adapter.refused(AdapterRankTooHigh, "rank 65")


def test_a_rank_that_only_the_tensors_have(adapter: Adapter) -> None:
    adapter[Q0, "A"], adapter[Q0, "B"] = np.ones((65, 8), "<f4"), np.ones((8, 65), "<f4")
    adapter.refused(AdapterRankTooHigh, "has rank 65")


# PEFT puts an optional "(.*\.)?" before a key, so an anchored key still matches the whole name.
@pytest.mark.parametrize(
    "key",
    [
        "layers.1.self_attn.v_proj",
        V1,
        r"layers\.1\..*v_proj",
        "layers.[1-1].self_attn.(v|x)_proj",
        "^" + V1,
    ],
)
def test_rank_patterns_as_peft_reads_them(adapter: Adapter, key: str) -> None:
    adapter[V1, "A"], adapter[V1, "B"] = np.full((2, 8), 0.1, "<f4"), np.full((4, 2), 0.1, "<f4")
    adapter.refused(AdapterShapeMismatch, V1)
    adapter.config["rank_pattern"] = {key: 2}
    assert intake.inspect(adapter.write(), base=base())[0].rank == 4


def test_a_rank_pattern_that_matches_too_much(adapter: Adapter) -> None:
    adapter.config["rank_pattern"] = {"1.self_attn.(q|k)_proj": 2}
    adapter.refused(AdapterShapeMismatch, r"layers\.1\.self_attn\.q_proj: the config says rank 2")


def test_the_first_matching_pattern_wins_and_a_part_of_a_word_is_no_match(adapter: Adapter) -> None:
    adapter[V1, "A"], adapter[V1, "B"] = np.full((2, 8), 0.1, "<f4"), np.full((4, 2), 0.1, "<f4")
    adapter.config["rank_pattern"] = {"_proj": 3, "layers.1.self_attn.v_proj": 2, "1.self_attn.v_proj": 3}
    intake.inspect(adapter.write(), base=base())
    adapter.config["rank_pattern"] = {"1.self_attn.v_proj": 3, "layers.1.self_attn.v_proj": 2}
    adapter.refused(AdapterShapeMismatch, "rank 3")


# --------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["A", "B"])
def test_one_number_that_is_not_finite(adapter: Adapter, side: str, value: float) -> None:
    adapter[V1, side][-1, -1] = value
    adapter.refused(AdapterNotFinite, f"{V1}: lora_{side}")


@pytest.mark.parametrize("factor", [1e20, 1e6])
def test_huge_weights(adapter: Adapter, factor: float) -> None:
    adapter[V0, "B"] *= np.float32(factor)
    adapter.refused(AdapterTooLarge, rf"{V0}: lora_B has norm .*highest allowed is 10000")


def test_huge_and_tiny_do_not_cancel(adapter: Adapter) -> None:
    adapter[V0, "A"] *= np.float32(1e20)
    adapter[V0, "B"] *= np.float32(1e-20)
    adapter.refused(AdapterTooLarge, "lora_A")


def test_a_huge_scale(adapter: Adapter) -> None:
    adapter.config["lora_alpha"] = 1_000_000
    adapter.refused(AdapterTooLarge, "its update can reach norm")
    adapter.config["lora_alpha"] = 16
    adapter.config["alpha_pattern"] = {V0: 1e8}
    adapter.refused(AdapterTooLarge, V0)


def test_usual_magnitudes_pass(adapter: Adapter) -> None:
    adapter.tensors = {name: value * np.float32(10) for name, value in adapter.tensors.items()}
    intake.inspect(adapter.write(), base=base())


@pytest.mark.parametrize("side", ["A", "B"])
def test_no_effect_at_all(adapter: Adapter, side: str) -> None:
    for name, tensor in adapter.tensors.items():
        if f"lora_{side}" in name:
            tensor[:] = 0
    adapter.refused(AdapterZeroEffect, "zero")
    adapter[Q0, side][0, 0] = 1e-3
    intake.inspect(adapter.write(), base=base())


def test_half_precision_is_read_as_what_it_is(adapter: Adapter) -> None:
    adapter.tensors = {name: value.astype("<f2") for name, value in adapter.tensors.items()}
    intake.inspect(adapter.write(), base=base())
    adapter[Q0, "A"][0, 0] = np.inf
    adapter.refused(AdapterNotFinite, Q0)


def test_double_precision_is_refused(adapter: Adapter) -> None:
    adapter[Q0, "A"] = adapter[Q0, "A"].astype("<f8")
    adapter.refused(AdapterTensorsMalformed, "F64")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"", lambda data: data[:40]]
)
def test_a_damaged_file(adapter: Adapter, damage: Callable[[bytes], bytes]) -> None:
    path = adapter.write() / intake.WEIGHTS
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(AdapterTensorsMalformed):
        intake.inspect(adapter.folder, base=base())
