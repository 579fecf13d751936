"""Adapters that must not get in: each refused with its own code, and nothing of it stays."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from registry.bases import describe
from registry.tensors import read_header, read_tensor
from server.demo.build_base import SHIPPED_BASE
from tests.journeys.commands import tenon
from tests.journeys.conftest import Served
from tests.support.adapters import tiny_base, write_adapter, write_safetensors


def _tensors(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_model.safetensors"
    return {name: read_tensor(path, info) for name, info in read_header(path).items()}


def _config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def nan(folder: Path) -> None:
    tensors = _tensors(folder)
    next(iter(tensors.values()))[0, 0] = np.nan
    write_safetensors(folder / "adapter_model.safetensors", tensors)


def wrong_shape(folder: Path) -> None:
    tensors = _tensors(folder)
    name = next(name for name in tensors if name.endswith("lora_B.weight"))
    tensors[name] = np.concatenate([tensors[name], tensors[name]])
    write_safetensors(folder / "adapter_model.safetensors", tensors)


def pickle(folder: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"\x80\x04K\x01.")


def dora(folder: Path) -> None:
    _config(folder, use_dora=True)


def rank(folder: Path) -> None:
    base = describe(SHIPPED_BASE, name="demo", revision="local")
    write_adapter(folder, base, rank=128, seed=9)


def other_base(folder: Path) -> None:
    write_adapter(folder, tiny_base()[0], seed=9)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (nan, "adapter_not_finite"),
        (wrong_shape, "adapter_shape_mismatch"),
        (pickle, "adapter_pickle"),
        (dora, "adapter_unsupported"),
        (rank, "adapter_rank_too_high"),
        (other_base, "adapter_base_mismatch"),
    ],
)
def test_a_bad_adapter_is_refused_by_its_own_code(
    served: Served, tmp_path: Path, spoil: Callable[[Path], None], code: str
) -> None:
    base = describe(SHIPPED_BASE, name="demo", revision="local")
    folder = write_adapter(tmp_path / "adapter", base, seed=9)
    spoil(folder)
    workspace = served.workspace

    def stored() -> tuple[object, ...]:
        versions = [version.version for version in served.catalog.snapshot().versions]
        return (versions, sorted(path for path in workspace.blobs.rglob("*") if path.is_file()))

    if not (workspace.bases / "demo").exists():
        (workspace.bases / "demo").symlink_to(SHIPPED_BASE)
    before = stored()
    done = tenon(
        "adapter",
        "push",
        str(folder),
        "--as",
        "bank_a/assistant",
        "--base",
        "demo",
        "-w",
        str(workspace.root),
    )
    assert done.code == 1
    assert f"[{code}]" in done.err
    assert "hint:" in done.err
    assert "Traceback" not in done.err
    assert stored() == before


def test_help_of_every_command_explains_itself() -> None:
    done = tenon("--help")
    assert done.code == 0
    commands = [line.split()[0] for line in done.out.split("Commands:")[1].splitlines() if line.strip()]
    for command in commands:
        shown = tenon(command, "--help")
        assert shown.code == 0, command
        assert "Usage:" in shown.out


def test_a_missing_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    done = tenon("tenant", "list", "-w", str(tmp_path / "none"))
    assert (done.code, done.out) == (1, "")
    assert "workspace_not_found" in done.err
    assert "tenon init" in done.err
