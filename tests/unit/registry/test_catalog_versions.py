import json
import math
from pathlib import Path

import numpy as np
import pytest

from registry.blobs.filesystem import FilesystemBlobs
from registry.catalog import intake
from registry.catalog.errors import FingerprintInvalid
from registry.contract import Contract
from registry.digests import Digest
from registry.errors import (
    AdapterBaseMismatch,
    AdapterFileUnexpected,
    AdapterNotFinite,
    AdapterPickle,
    AdapterRankTooHigh,
    AdapterZeroEffect,
    AlreadyExists,
    BaseNotFound,
    BlobCorrupt,
    InvalidInput,
    InvalidName,
    TenantNotFound,
    TenonError,
    VersionNotFound,
    VersionRevoked,
)
from registry.fingerprint import Fingerprint
from registry.intake import inspect
from registry.manifests import Provenance
from registry.names import AdapterName, Ref
from tests.support.adapters import tiny_base, tiny_fingerprint, write_adapter, write_safetensors
from tests.support.registries import NAME, World, open_world

UPLOAD = Provenance(method="upload")


def _push(world: World, folder: Path, **changes: object) -> Digest:
    given: dict[str, object] = {
        "base": world.base,
        "fingerprint": tiny_fingerprint(world.base),
        "provenance": UPLOAD,
        "actor": "test",
    }
    return world.catalog.push(NAME, folder, **(given | changes))  # type: ignore[arg-type]


def _stored(world: World) -> tuple[int, set[Digest]]:
    return world.catalog.snapshot().size, set(world.blobs.digests())


def test_a_version_is_its_manifest(world: World) -> None:
    version = world.push()
    manifest = world.catalog.manifest(version)
    assert manifest.identity() == version
    assert (manifest.tenant, manifest.adapter, manifest.base) == ("bank_a", "assistant", world.base)
    assert [file.path for file in manifest.files] == ["adapter_config.json", "adapter_model.safetensors"]
    assert Contract.parse(world.blobs.read(manifest.contract.digest)) == tiny_base()[1]
    assert manifest.fingerprint is not None
    expected = tiny_fingerprint(world.base)
    assert Fingerprint.parse(world.blobs.read(manifest.fingerprint.digest)) == expected
    assert manifest.lora.rank == 4


def test_the_same_bytes_are_the_same_version(world: World) -> None:
    version = world.push()
    before = _stored(world)
    assert world.push() == version
    assert _stored(world) == before
    assert world.push(seed=1) != version
    assert world.push(AdapterName("retail_b", "assistant")) != version


def test_states_are_derived(world: World) -> None:
    def states() -> list[str]:
        return [item.state for item in world.catalog.versions(NAME)]

    pushed = world.push(seed=5)
    assert states() == ["pushed"]
    evaluated = world.evaluated(seed=6)
    live = world.promoted(seed=7)
    assert states() == ["pushed", "evaluated", "live"]
    assert world.catalog.versions(NAME)[2].aliases == ("live",)
    world.catalog.revoke(live, reason="wrong data", actor="test")
    assert states() == ["pushed", "evaluated", "revoked"]
    assert [item.version for item in world.catalog.versions(NAME)] == [pushed, evaluated, live]
    assert world.catalog.adapters() == (NAME,)
    assert world.catalog.adapters("retail_b") == ()


def test_refs(world: World) -> None:
    version = world.promoted()
    assert world.catalog.resolve(Ref.parse("bank_a/assistant")) == version
    assert world.catalog.resolve(Ref(NAME, version=version)) == version
    with pytest.raises(TenonError, match="points nowhere"):
        world.catalog.resolve(Ref.parse("bank_a/assistant:canary"))
    foreign = world.push(AdapterName("retail_b", "assistant"))
    for unknown in (foreign, Digest.of(b"nothing")):
        with pytest.raises(VersionNotFound):
            world.catalog.resolve(Ref(NAME, version=unknown))
    with pytest.raises(VersionNotFound):
        world.catalog.manifest(Digest.of(b"nothing"))


def test_nothing_of_a_refused_adapter_is_stored(world: World, tmp_path: Path) -> None:
    base, _ = tiny_base()
    before = _stored(world)

    def folder(name: str) -> Path:
        return write_adapter(tmp_path / name, base)

    pickled = folder("pickle")
    (pickled / "optimizer.pt").write_bytes(b"x")
    foreign = folder("foreign")
    config = json.loads((foreign / "adapter_config.json").read_text())
    (foreign / "adapter_config.json").write_text(json.dumps(config | {"r": 4096}))
    nan = folder("nan")
    write_safetensors(
        nan / "adapter_model.safetensors",
        {
            f"base_model.model.{module}.lora_{side}.weight": np.full(shape, math.nan, np.float32)
            for module, (out, into) in base.modules.items()
            if module.endswith(("q_proj", "v_proj"))
            for side, shape in (("A", (4, into)), ("B", (out, 4)))
        },
    )
    linked = folder("linked")
    (linked / "README.md").symlink_to("/etc/hostname")
    other = tiny_base(revision="r2")[0].identity()
    for path, changes, error in (
        (pickled, {}, AdapterPickle),
        (foreign, {}, AdapterRankTooHigh),
        (nan, {}, AdapterNotFinite),
        (linked, {}, AdapterFileUnexpected),
        (folder("good"), {"base": other}, BaseNotFound),
        (folder("good"), {"fingerprint": tiny_fingerprint(other)}, FingerprintInvalid),
    ):
        with pytest.raises(error):
            _push(world, path, **changes)
    with pytest.raises(TenantNotFound):
        world.push(AdapterName("nobody", "assistant"))
    with pytest.raises(InvalidName):
        world.push(AdapterName("bank_a", "../x"))
    assert _stored(world) == before


def test_the_engines_rank_bounds_the_adapters(tmp_path: Path) -> None:
    base, _ = tiny_base()
    world = open_world(tmp_path, max_rank=3)
    try:
        with pytest.raises(AdapterRankTooHigh):
            _push(world, write_adapter(tmp_path / "peft", base, rank=4))
    finally:
        world.database.close()


def test_an_adapter_of_another_base_is_refused(world: World, tmp_path: Path) -> None:
    base, _ = tiny_base()
    wide = base.model_copy(
        update={"modules": {name: (o * 2, i * 2) for name, (o, i) in base.modules.items()}}
    )
    with pytest.raises(AdapterBaseMismatch):
        _push(world, write_adapter(tmp_path / "wide", wide))


@pytest.mark.parametrize(
    ("field", "value"),
    [("own", (1, math.nan)), ("base", (1, -math.inf)), ("own", (1, 0.5))],
)
def test_a_fingerprint_is_made_of_log_probabilities(
    world: World, tmp_path: Path, field: str, value: tuple[int, float]
) -> None:
    fingerprint = tiny_fingerprint(world.base)
    rest = tuple((number, -5.0) for number in range(100, 120))
    probe = fingerprint.probes[0].model_copy(update={field: (value, *rest)})
    broken = fingerprint.model_copy(update={"probes": (probe,)})
    with pytest.raises(FingerprintInvalid, match="no log-probability"):
        _push(world, write_adapter(tmp_path / "a", tiny_base()[0]), fingerprint=broken)


@pytest.mark.parametrize("distance", [math.nan, math.inf, -1.0])
def test_a_distance_is_a_distance(world: World, tmp_path: Path, distance: float) -> None:
    broken = tiny_fingerprint(world.base).model_copy(update={"distance_to_base": distance})
    with pytest.raises(FingerprintInvalid):
        _push(world, write_adapter(tmp_path / "a", tiny_base()[0]), fingerprint=broken)


def test_a_token_counts_once_and_the_base_itself_is_no_adapter(world: World, tmp_path: Path) -> None:
    fingerprint = tiny_fingerprint(world.base)
    folder = write_adapter(tmp_path / "a", tiny_base()[0])
    own = fingerprint.probes[0].own[:30]
    twice = fingerprint.probes[0].model_copy(update={"own": (own[0], *own)})
    with pytest.raises(FingerprintInvalid, match="twice"):
        _push(world, folder, fingerprint=fingerprint.model_copy(update={"probes": (twice,)}))
    with pytest.raises(AdapterZeroEffect):
        _push(world, folder, fingerprint=fingerprint.model_copy(update={"distance_to_base": 0.0}))


def test_what_is_stored_is_what_was_inspected(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes to the folder while it is pushed: the new bytes are refused, not stored unseen."""
    folder = write_adapter(tmp_path / "a", tiny_base()[0])
    before = _stored(world)
    calls: list[Path] = []

    def inspect_and_then_change(path: Path, **options: object) -> object:
        result = inspect(path, **options)  # type: ignore[arg-type]
        calls.append(path)
        if len(calls) == 1:
            (folder / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
        return result

    monkeypatch.setattr(intake, "inspect", inspect_and_then_change)
    with pytest.raises(AdapterPickle):
        _push(world, folder)
    assert _stored(world) == before


def test_revoking_is_for_good(world: World, tmp_path: Path) -> None:
    version = world.promoted()
    world.catalog.announce(world.engine(), actor="test")
    world.catalog.attest(world.attestation(version), actor="test")
    assert world.catalog.snapshot().slots
    world.catalog.revoke(version, reason="poisoned", actor="alice")
    snapshot = world.catalog.snapshot()
    assert snapshot.slots == ()
    assert [state.revoked for state in snapshot.versions] == [True]
    world.catalog.revoke(version, reason="again", actor="bob")
    assert world.catalog.snapshot().size == snapshot.size
    assert world.catalog.entries(snapshot.size - 1)[0].body == {"reason": "poisoned"}
    for attempt in (
        world.push,
        lambda: world.catalog.export(version, tmp_path / "out"),
        lambda: world.catalog.attest(world.attestation(version), actor="test"),
    ):
        with pytest.raises(VersionRevoked):
            attempt()
    with pytest.raises(VersionNotFound):
        world.catalog.revoke(Digest.of(b"nothing"), reason="x", actor="test")
    with pytest.raises(InvalidInput):
        world.catalog.revoke(version, reason=" ", actor="test")
    assert world.catalog.verify() == []


def test_export_writes_what_was_pushed(world: World, tmp_path: Path) -> None:
    version = world.push(seed=3)
    pushed, out = world.folder / "peft-bank_a-assistant-3", tmp_path / "deep" / "out"
    manifest = world.catalog.export(version, out)
    assert manifest == world.catalog.manifest(version)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (out / name).read_bytes() == (pushed / name).read_bytes()
        assert (out / name).stat().st_mode & 0o777 == 0o644
    assert out.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    world.catalog.export(version, out)  # again: already there
    assert _push(world, out, fingerprint=tiny_fingerprint(world.base, seed=3)) == version


def test_export_replaces_nothing(world: World, tmp_path: Path) -> None:
    version = world.push()
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(AlreadyExists):
        world.catalog.export(version, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").unlink()
    world.catalog.export(version, out)
    (out / "adapter_config.json").write_text("{}")
    with pytest.raises(AlreadyExists):
        world.catalog.export(version, out)


def test_export_of_a_damaged_blob_leaves_nothing(tmp_path: Path) -> None:
    world = open_world(tmp_path, blobs=FilesystemBlobs(tmp_path / "blobs"))
    try:
        version = world.push()
        weights = world.catalog.manifest(version).files[1].digest
        path = tmp_path / "blobs" / "sha256" / weights.hex[:2] / weights.hex
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        target = tmp_path / "target"
        target.mkdir()
        with pytest.raises(BlobCorrupt):
            world.catalog.export(version, target / "out")
        assert list(target.iterdir()) == []
        (fault,) = world.catalog.verify(blobs=True)
        assert fault.where == f"blob {weights}"
        assert f"adapter_model.safetensors of bank_a/assistant@{version}" in fault.what
        assert world.catalog.verify() == []
        path.unlink()
        (fault,) = world.catalog.verify(blobs=True)
        assert "missing" in fault.what
    finally:
        world.database.close()
