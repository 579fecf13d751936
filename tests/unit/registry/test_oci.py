"""Versions as OCI image layouts: out, in, and what must not come in."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.canonical import encode
from registry.digests import Digest
from registry.errors import AlreadyExists, BaseNotFound, LayoutInvalid, VersionRevoked
from registry.manifests import Manifest
from registry.names import AdapterName, Ref
from registry.oci import ARTIFACT, LAYERS, MANIFEST, SIGNATURE, TAG, TITLE
from registry.signing.types import MANIFEST as SIGNED_MANIFEST
from server.assembly.oci import export, take
from tests.support.registries import NAME, World, open_world, signer


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "here"
    folder.mkdir()
    made = open_world(folder)
    yield made
    made.database.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "there"
    folder.mkdir()
    made = open_world(folder)
    yield made
    made.database.close()


@pytest.fixture
def layout(world: World, tmp_path: Path) -> Path:
    version = world.push()
    manifest = world.catalog.manifest(version)
    envelope = signer("trainer").sign(SIGNED_MANIFEST, manifest.canonical())
    world.catalog.sign_version(version, envelope, actor="test")
    export(world.catalog, Ref(NAME, version=version), tmp_path / "layout")
    return tmp_path / "layout"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def document(layout: Path, digest: str) -> Any:
    return json.loads((layout / "blobs" / "sha256" / digest[7:]).read_bytes())


def index(layout: Path) -> Any:
    return json.loads((layout / "index.json").read_bytes())


def artifact(layout: Path) -> Any:
    return document(layout, index(layout)["manifests"][0]["digest"])


def put(layout: Path, data: bytes) -> dict[str, Any]:
    digest = Digest.of(data)
    (layout / "blobs" / "sha256" / digest.hex).write_bytes(data)
    return {"digest": digest, "size": len(data)}


def rewrite(layout: Path, change: Callable[[Any], None]) -> None:
    """The artifact changed by somebody who knows how layouts work: every digest above it fits again."""
    changed, top = artifact(layout), index(layout)
    change(changed)
    top["manifests"][0] |= put(layout, encode(changed))
    top["manifests"] = top["manifests"][:1]
    (layout / "index.json").write_bytes(encode(top))


@pytest.mark.parametrize("fingerprinted", [True, False])
def test_out_and_in_again_is_the_same_version(
    world: World, elsewhere: World, tmp_path: Path, fingerprinted: bool
) -> None:
    version = world.push(fingerprinted=fingerprinted)
    export(world.catalog, Ref(NAME, version=version), tmp_path / "layout")
    assert take(elsewhere.catalog, tmp_path / "layout", None, tag=None).version == version
    assert elsewhere.catalog.manifest(version) == world.catalog.manifest(version)
    world.catalog.export(version, tmp_path / "a")
    elsewhere.catalog.export(version, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_the_same_version_gives_the_same_bytes(world: World, layout: Path, tmp_path: Path) -> None:
    (summary,) = world.catalog.versions(NAME)
    _, done = export(world.catalog, Ref(NAME, version=summary.version), tmp_path / "again")
    assert tree(tmp_path / "again") == tree(layout)
    assert done.artifact == index(layout)["manifests"][0]["digest"]
    assert done.tag == summary.version.hex[:16]


def test_what_a_layout_holds(world: World, layout: Path) -> None:
    """image-spec 1.1: image-layout.md, image-index.md, manifest.md (artifact usage), descriptor.md."""
    (summary,) = world.catalog.versions(NAME)
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    top = index(layout)
    assert (top["schemaVersion"], top["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    mine, signature = top["manifests"]
    assert (mine["artifactType"], signature["artifactType"]) == (ARTIFACT, SIGNATURE)
    assert mine["annotations"] == {TAG: summary.version.hex[:16]}
    found = artifact(layout)
    assert found["artifactType"] == ARTIFACT
    assert (found["config"]["mediaType"], found["config"]["digest"]) == (MANIFEST, summary.version)
    manifest = world.catalog.manifest(summary.version)
    assert [layer["annotations"][TITLE] for layer in found["layers"]] == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "contract.json",
        "fingerprint.json",
    ]
    for layer in found["layers"]:
        assert layer["mediaType"] == LAYERS[layer["annotations"][TITLE]]
    assert [layer["digest"] for layer in found["layers"][:2]] == [file.digest for file in manifest.files]
    subject = document(layout, signature["digest"])["subject"]
    assert subject == {key: mine[key] for key in ("mediaType", "digest", "size")}
    for path in (layout / "blobs" / "sha256").iterdir():
        assert Digest.of(path.read_bytes()).hex == path.name


def test_signatures_by_trusted_keys_come_along(world: World, elsewhere: World, layout: Path) -> None:
    done = take(elsewhere.catalog, layout, None, tag=None)
    assert done.signatures == 1
    assert elsewhere.catalog.signatures(done.version) == world.catalog.signatures(done.version)


def test_signatures_by_others_stay_behind(elsewhere: World, layout: Path) -> None:
    elsewhere.catalog.distrust(signer("trainer").public.id, reason="left", actor="test")
    done = take(elsewhere.catalog, layout, None, tag=None)
    assert done.signatures == 0
    assert elsewhere.catalog.signatures(done.version) == ()


def test_under_another_name_it_is_another_version(elsewhere: World, layout: Path) -> None:
    name = AdapterName("retail_b", "copied")
    done = take(elsewhere.catalog, layout, name, tag=None)
    manifest = elsewhere.catalog.manifest(done.version)
    assert (manifest.tenant, manifest.adapter) == ("retail_b", "copied")
    assert done.version != artifact(layout)["config"]["digest"]
    assert done.signatures == 0


def test_a_folder_that_holds_something_is_left_alone(world: World, layout: Path) -> None:
    (summary,) = world.catalog.versions(NAME)
    before = tree(layout)
    with pytest.raises(AlreadyExists):
        export(world.catalog, Ref(NAME, version=summary.version), layout)
    assert tree(layout) == before


def test_a_revoked_version_does_not_leave(world: World, tmp_path: Path) -> None:
    version = world.push()
    world.catalog.revoke(version, reason="wrong data", actor="test")
    with pytest.raises(VersionRevoked):
        export(world.catalog, Ref(NAME, version=version), tmp_path / "layout")
    assert not (tmp_path / "layout").exists()


def refused(elsewhere: World, layout: Path, match: str | None = None) -> None:
    before = list(elsewhere.blobs.digests())
    with pytest.raises(LayoutInvalid, match=match):
        take(elsewhere.catalog, layout, None, tag=None)
    assert elsewhere.catalog.adapters() == ()
    assert list(elsewhere.blobs.digests()) == before


@pytest.mark.parametrize(
    "title",
    [
        "../adapter_config.json",
        "/etc/passwd",
        "a/b",
        "..",
        "",
        "adapter_config.json\0",
        "pickle.bin",
        "x" * 300,
    ],
)
def test_a_title_that_is_no_file_of_an_adapter(elsewhere: World, layout: Path, title: str) -> None:
    def change(found: Any) -> None:
        found["layers"][0]["annotations"][TITLE] = title

    rewrite(layout, change)
    refused(elsewhere, layout, "does not belong")


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["layers"].append(found["layers"][0]),
        lambda found: found["layers"].pop(),
        lambda found: found["layers"].pop(0),
        lambda found: found["layers"][0].pop("annotations"),
        lambda found: found["layers"][0].update(mediaType="application/octet-stream"),
        lambda found: found["layers"][0].update(size=found["layers"][0]["size"] + 1),
        lambda found: found["layers"][0].update(digest="sha512:" + "0" * 128),
        lambda found: found["layers"][0].update(digest="sha256:../../etc/passwd"),
        lambda found: found["layers"][0].update(digest=found["layers"][1]["digest"]),
        lambda found: found["layers"][0].update(size=-1),
        lambda found: found["config"].update(mediaType="application/vnd.oci.empty.v1+json"),
        lambda found: found["config"].update(digest="sha256:" + "0" * 64),
        lambda found: found.update(artifactType="application/vnd.other"),
        lambda found: found.update(schemaVersion=1),
        lambda found: found.update(layers={}),
        lambda found: found.update(layers=[found["layers"][0]] * 1000),
    ],
)
def test_an_artifact_that_contradicts_itself(
    elsewhere: World, layout: Path, change: Callable[[Any], None]
) -> None:
    rewrite(layout, change)
    refused(elsewhere, layout)


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"[]", b"null", b"not json", b'{"a":1,"a":2}', b"[" * 100_000]
)
@pytest.mark.parametrize("file", ["oci-layout", "index.json"])
def test_documents_that_are_none(elsewhere: World, layout: Path, file: str, damage: bytes) -> None:
    (layout / file).write_bytes(damage)
    refused(elsewhere, layout)


def test_every_single_damaged_blob_is_noticed(elsewhere: World, layout: Path) -> None:
    needed = artifact(layout)
    blobs = [index(layout)["manifests"][0], needed["config"], *needed["layers"]]
    for blob in blobs:
        path = layout / "blobs" / "sha256" / blob["digest"][7:]
        data = path.read_bytes()
        for damaged in (data[:-1] + bytes([data[-1] ^ 1]), data[:-1], data + b"!"):
            path.write_bytes(damaged)
            refused(elsewhere, layout)
        path.write_bytes(data)
    assert take(elsewhere.catalog, layout, None, tag=None).version


def test_links_are_not_followed(elsewhere: World, layout: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    path = layout / "blobs" / "sha256" / artifact(layout)["layers"][1]["digest"][7:]
    path.rename(moved)
    path.symlink_to(moved)
    refused(elsewhere, layout, "cannot be read")
    path.unlink()
    os.mkfifo(path)
    refused(elsewhere, layout, "no file")
    path.unlink()
    moved.rename(path)
    (layout / "blobs").rename(tmp_path / "blobs")
    (layout / "blobs").symlink_to(tmp_path / "blobs")
    refused(elsewhere, layout, "cannot be read")


def test_a_manifest_that_lies_about_its_files(elsewhere: World, layout: Path) -> None:
    """Its digests fit, and what it says of the shape does not: the intake looks for itself."""
    found = artifact(layout)
    manifest = document(layout, found["config"]["digest"])
    manifest["lora"]["rank"] = 64
    lie = put(layout, Manifest.build(manifest).canonical())
    rewrite(layout, lambda found: found["config"].update(lie))
    refused(elsewhere, layout, "not as the manifest describes")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["files"].reverse(),
        lambda manifest: manifest["files"].pop(),
        lambda manifest: manifest["contract"].update(path="fingerprint.json"),
        lambda manifest: manifest["files"][0].update(path="adapter_model.safetensors"),
    ],
)
def test_a_manifest_of_other_files(elsewhere: World, layout: Path, change: Callable[[Any], None]) -> None:
    manifest = document(layout, artifact(layout)["config"]["digest"])
    change(manifest)
    other = put(layout, Manifest.build(manifest).canonical())
    rewrite(layout, lambda found: found["config"].update(other))
    refused(elsewhere, layout, "other files")


def test_a_manifest_in_another_spelling(elsewhere: World, layout: Path) -> None:
    manifest = document(layout, artifact(layout)["config"]["digest"])
    spelt = put(layout, json.dumps(manifest, indent=1).encode())
    rewrite(layout, lambda found: found["config"].update(spelt))
    refused(elsewhere, layout, "not canonical")


def test_an_unknown_base(tmp_path: Path, layout: Path, elsewhere: World) -> None:
    found = artifact(layout)
    manifest = document(layout, found["config"]["digest"])
    manifest["base"] = Digest.of(b"another base")
    other = put(layout, Manifest.build(manifest).canonical())
    rewrite(layout, lambda found: found["config"].update(other))
    with pytest.raises(BaseNotFound):
        take(elsewhere.catalog, layout, None, tag=None)


def test_one_of_several_is_named_by_its_tag(
    world: World, elsewhere: World, layout: Path, tmp_path: Path
) -> None:
    other = world.push(seed=1)
    export(world.catalog, Ref(NAME, version=other), tmp_path / "other")
    both = index(layout)
    both["manifests"] += index(tmp_path / "other")["manifests"]
    shutil.copytree(tmp_path / "other" / "blobs", layout / "blobs", dirs_exist_ok=True)
    (layout / "index.json").write_bytes(encode(both))
    refused(elsewhere, layout, "several")
    assert take(elsewhere.catalog, layout, None, tag=other.hex[:16]).version == other
    with pytest.raises(LayoutInvalid, match="tagged"):
        take(elsewhere.catalog, layout, None, tag="latest")


def test_fields_of_later_specifications_are_ignored(elsewhere: World, layout: Path) -> None:
    def change(found: Any) -> None:
        found["annotations"]["org.opencontainers.image.created"] = "2026-01-01T00:00:00Z"
        found["later"] = {"x": 1}
        found["layers"][0]["urls"] = ["https://example.com/other"]

    rewrite(layout, change)
    assert take(elsewhere.catalog, layout, None, tag=None).version
