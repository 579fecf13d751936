"""The package of a training: two files, and only what the training decides in them."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from registry.digests import Digest
from registry.errors import AdapterFileMissing, AdapterTensorsMalformed
from registry.intake import inspect
from registry.models import Base
from registry.tensors import read_header, read_tensor
from tests.support.adapters import tiny_base, write_adapter
from trainer.package import package

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def tiny() -> Base:
    return tiny_base()[0]


def test_intake_accepts_the_package_and_the_tensors_are_unchanged(tmp_path: Path, tiny: Base) -> None:
    saved = write_adapter(tmp_path / "saved", tiny)
    package(saved, tmp_path / "out", base=tiny.identity(), base_name=tiny.name)
    shape, files = inspect(tmp_path / "out", base=tiny)
    assert shape.rank == 4
    assert [path.name for path in files] == [CONFIG, WEIGHTS]
    before, after = read_header(saved / WEIGHTS), read_header(tmp_path / "out" / WEIGHTS)
    assert set(before) == set(after)
    for name in before:
        old, new = (
            read_tensor(saved / WEIGHTS, before[name]),
            read_tensor(tmp_path / "out" / WEIGHTS, after[name]),
        )
        assert np.array_equal(old, new)


def test_places_orders_and_leftovers_do_not_change_a_byte(tmp_path: Path, tiny: Base) -> None:
    """What PEFT writes differs between two runs in exactly these ways."""
    digests = []
    for number, targets in enumerate((["q_proj", "v_proj"], ["v_proj", "q_proj"])):
        saved = write_adapter(tmp_path / f"saved-{number}", tiny)
        config = json.loads((saved / CONFIG).read_text())
        config |= {
            "target_modules": targets,
            "base_model_name_or_path": f"/somewhere/{number}",
            "revision": None,
            "eva_config": None,
            "peft_version": f"0.{number}",
        }
        (saved / CONFIG).write_text(json.dumps(dict(sorted(config.items(), reverse=bool(number)))))
        (saved / "training_args.bin").write_bytes(b"\x80\x04pickle")
        (saved / "README.md").write_text("a card")
        if number:
            _reorder(saved / WEIGHTS)
        (saved / WEIGHTS).chmod(0o600)
        files = package(saved, tmp_path / f"out-{number}", base=tiny.identity(), base_name="tiny")
        digests.append([Digest.of_file(path) for path in files])
        assert sorted(path.name for path in (tmp_path / f"out-{number}").iterdir()) == [CONFIG, WEIGHTS]
        assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    assert digests[0] == digests[1]
    config = json.loads((tmp_path / "out-0" / CONFIG).read_text())
    assert config["base_model_name_or_path"] == "tiny"
    assert config["tenon_base"] == tiny.identity()
    assert "somewhere" not in (tmp_path / "out-0" / CONFIG).read_text()


def _reorder(path: Path) -> None:
    """The same tensors in the opposite order, with other metadata."""
    data = path.read_bytes()
    infos = sorted(read_header(path).values(), key=lambda info: info.name, reverse=True)
    header: dict[str, object] = {"__metadata__": {"format": "pt", "when": "now"}}
    body = b""
    for info in infos:
        piece = data[info.begin : info.end]
        header[info.name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [len(body), len(body) + len(piece)],
        }
        body += piece
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_other_weights_are_another_package(tmp_path: Path, tiny: Base) -> None:
    digests = set()
    for seed in (0, 1):
        saved = write_adapter(tmp_path / f"saved-{seed}", tiny, seed=seed)
        files = package(saved, tmp_path / f"out-{seed}", base=tiny.identity(), base_name="tiny")
        digests.add(Digest.of_file(files[1]))
    assert len(digests) == 2


def test_safetensors_itself_reads_the_package(tmp_path: Path, tiny: Base) -> None:
    from safetensors.numpy import load_file

    saved = write_adapter(tmp_path / "saved", tiny)
    package(saved, tmp_path / "out", base=tiny.identity(), base_name="tiny")
    before, after = load_file(saved / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    (length,) = struct.unpack("<Q", (tmp_path / "out" / WEIGHTS).read_bytes()[:8])
    assert length % 8 == 0


def test_what_is_missing_or_damaged_is_said(tmp_path: Path, tiny: Base) -> None:
    saved = write_adapter(tmp_path / "saved", tiny)
    (saved / WEIGHTS).write_bytes((saved / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(AdapterTensorsMalformed):
        package(saved, tmp_path / "out", base=tiny.identity(), base_name="tiny")
    (saved / WEIGHTS).unlink()
    with pytest.raises(AdapterFileMissing, match=WEIGHTS):
        package(saved, tmp_path / "out", base=tiny.identity(), base_name="tiny")
