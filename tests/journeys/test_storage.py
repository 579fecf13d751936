"""Bytes on S3 and as OCI layouts, from the command line."""

import io
import json
import os
from pathlib import Path

import pytest

from registry.blobs.errors import BlobsUnavailable
from registry.digests import Digest
from registry.manifests import Provenance
from registry.models import Tenant
from registry.names import AdapterName
from server.assembly.blobs import open_storage
from server.assembly.catalog import initialise, open_catalog
from server.errors import SettingsInvalid
from server.settings import StorageSettings
from server.workspace import Workspace
from tests.journeys.commands import tenon
from tests.support.adapters import tiny_base, tiny_fingerprint, write_adapter
from tests.support.s3 import CREDENTIALS, S3Server, aged, keys

NAME = AdapterName("bank_a", "assistant")


def prepare(root: Path) -> Workspace:
    workspace = initialise(root)
    catalog = open_catalog(workspace, StorageSettings())
    base, contract = tiny_base()
    catalog.register_base(base, contract, actor="test")
    catalog.create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="test")
    return workspace


def push(workspace: Workspace, settings: StorageSettings, folder: Path) -> Digest:
    base, _ = tiny_base()
    return open_catalog(workspace, settings).push(
        NAME,
        write_adapter(folder, base),
        base=base.identity(),
        fingerprint=tiny_fingerprint(base.identity()),
        provenance=Provenance(method="upload"),
        actor="test",
    )


def credentials(folder: Path, text: str | None = None) -> Path:
    path = folder / "credentials"
    path.write_text(
        text
        if text is not None
        else f"[default]\naws_access_key_id = {CREDENTIALS.access_key}\n"
        f"aws_secret_access_key = {CREDENTIALS.secret_key}\n"
    )
    return path


def test_a_registry_on_s3(tmp_path: Path, s3: S3Server) -> None:
    place = s3.place(prefix="tenon/")
    settings = StorageSettings(
        s3_bucket=place.bucket,
        s3_prefix=place.prefix,
        s3_endpoint=place.endpoint,
        s3_path_style=True,
        s3_credentials_file=credentials(tmp_path),
    )
    workspace = prepare(tmp_path / "workspace")
    version = push(workspace, settings, tmp_path / "adapter")
    assert len(keys(place, "sha256/")) == 4
    assert list(workspace.blobs.iterdir()) == []
    stray, _ = open_storage(workspace, settings).blobs.put(io.BytesIO(b"stray"))
    aged(place, f"sha256/{stray.hex[:2]}/{stray.hex}")
    environment = {
        "TENON_S3_BUCKET": place.bucket,
        "TENON_S3_PREFIX": place.prefix,
        "TENON_S3_ENDPOINT": s3.endpoint,
        "TENON_S3_PATH_STYLE": "true",
        "TENON_S3_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "TENON_WORKSPACE": str(workspace.root),
    }
    found = tenon("blobs", "gc", environment=environment)
    assert found.code == 0, found.err
    assert "Nothing was removed" in found.err
    assert len(keys(place, "sha256/")) == 5
    done = json.loads(tenon("blobs", "gc", "--delete", "--json", environment=environment).out)
    assert [item["digest"] for item in done["blobs"]] == [stray]
    assert (done["deleted"], done["kept"]["count"]) == (True, 4)
    assert len(keys(place, "sha256/")) == 4
    pulled = tenon("adapter", "pull", f"{NAME}@{version}", str(tmp_path / "pulled"), environment=environment)
    assert pulled.code == 0, pulled.err
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "pulled" / file).read_bytes() == (tmp_path / "adapter" / file).read_bytes()
    gone = tenon("blobs", "gc", environment=environment | {"TENON_S3_ENDPOINT": "http://127.0.0.1:1"})
    assert gone.code == 4
    assert "blobs_unavailable" in gone.err
    hasty = tenon("blobs", "gc", "--grace", "0.5", environment=environment)
    assert (hasty.code, "an hour or more" in hasty.err) == (1, True)


def test_a_version_travels_as_an_oci_layout(tmp_path: Path) -> None:
    here, there = prepare(tmp_path / "here"), prepare(tmp_path / "there")
    version = push(here, StorageSettings(), tmp_path / "adapter")
    layout = str(tmp_path / "layout")
    out = tenon("adapter", "export", f"{NAME}@{version}", layout, "-w", str(here.root))
    assert out.code == 0, out.err
    index = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    assert out.out.strip() == index["manifests"][0]["digest"]
    assert f"{layout}:{version.hex[:16]}" in out.err
    taken = tenon("adapter", "import", layout, "-w", str(there.root))
    assert (taken.code, taken.out.strip()) == (0, version), taken.err
    again = tenon("adapter", "import", layout, "--as", "bank_a/copy", "--json", "-w", str(there.root))
    assert json.loads(again.out)["version"] != version
    os.truncate(next((tmp_path / "layout" / "blobs" / "sha256").iterdir()), 1)
    broken = tenon("adapter", "import", layout, "-w", str(there.root))
    assert (broken.code, "oci_layout_invalid" in broken.err) == (1, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "[default]\naws_access_key_id = x\n",
        "[other]\naws_secret_access_key = hidden\n",
        "[default",
    ],
)
def test_credentials_that_are_none(tmp_path: Path, text: str) -> None:
    workspace = Workspace(tmp_path)
    settings = StorageSettings(s3_bucket="bucket", s3_credentials_file=credentials(tmp_path, text))
    with pytest.raises(SettingsInvalid) as raised:
        open_storage(workspace, settings)
    assert "hidden" not in raised.value.message
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        open_storage(workspace, StorageSettings(s3_bucket="bucket", s3_credentials_file=tmp_path / "none"))
    with pytest.raises(SettingsInvalid, match="prefix"):
        open_storage(workspace, StorageSettings(s3_bucket="bucket", s3_prefix="no-slash"))


def test_the_standard_chain_is_asked_when_none_are_given(
    tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = s3.place(prefix="")
    settings = StorageSettings(s3_bucket=place.bucket, s3_endpoint=place.endpoint, s3_path_style=True)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials(tmp_path)))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    storage = open_storage(Workspace(tmp_path), settings)
    digest, _ = storage.blobs.put(io.BytesIO(b"data"))
    assert keys(place) == [f"sha256/{digest.hex[:2]}/{digest.hex}"]
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(BlobsUnavailable, match="NoCredentialsError"):
        open_storage(Workspace(tmp_path), settings).blobs.has(digest)
