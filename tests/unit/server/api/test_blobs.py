"""Bytes over HTTP: whole, in chunks, in part, and never another tenant's."""

import io
import os
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from registry.blobs.memory import InMemoryBlobs
from registry.digests import Digest
from registry.intake import CONFIG, WEIGHTS
from registry.manifests import Manifest
from server.api.ranges import asked
from server.errors import RangeNotSatisfiable
from tests.support.adapters import tiny_base, write_adapter
from tests.support.control import ControlWorld
from tests.support.registries import NAME

DATA = os.urandom(50_000)
DIGEST = Digest.of(DATA)
ABSENT = Digest.of(b"never stored")
BLOBS = "/tenants/bank_a/blobs"
UPLOADS = "/tenants/bank_a/uploads"


def flipped(data: bytes, at: int) -> bytes:
    damaged = bytearray(data)
    damaged[at] ^= 1
    return bytes(damaged)


def put(bench: ControlWorld, data: bytes = DATA, *, tenant: str = "bank_a") -> Any:
    path = f"/tenants/{tenant}/blobs/{Digest.of(data)}"
    return bench.call("PUT", path, "trainer", tenant=tenant, content=data)


def missing(bench: ControlWorld, *digests: Digest, tenant: str = "bank_a") -> list[str]:
    answer = bench.call(
        "POST", f"/tenants/{tenant}/blobs/missing", "trainer", tenant=tenant, json={"digests": list(digests)}
    )
    assert answer.status_code == 200, answer.text
    found: list[str] = answer.json()["missing"]
    return found


def begin(bench: ControlWorld, digest: Digest = DIGEST, size: int = len(DATA)) -> Any:
    return bench.call("POST", UPLOADS, "trainer", json={"digest": digest, "size": size})


def send(bench: ControlWorld, offset: int, data: bytes, digest: Digest = DIGEST) -> Any:
    return bench.call(
        "PATCH", f"{UPLOADS}/{digest}", "trainer", content=data, headers={"Upload-Offset": str(offset)}
    )


def test_in_one_body(bench: ControlWorld) -> None:
    assert missing(bench, DIGEST) == [DIGEST]
    answer = put(bench)
    assert (answer.status_code, answer.json()) == (201, {"digest": DIGEST, "size": len(DATA)})
    assert missing(bench, DIGEST, ABSENT) == [ABSENT]
    read = bench.call("GET", f"{BLOBS}/{DIGEST}", "trainer")
    assert (read.status_code, read.content) == (200, DATA)
    assert read.headers["etag"] == f'"{DIGEST}"'
    assert read.headers["content-type"] == "application/octet-stream"


def test_wrong_bytes_are_refused_and_gone(bench: ControlWorld) -> None:
    answer = bench.call("PUT", f"{BLOBS}/{DIGEST}", "trainer", content=DATA[:-1])
    assert (answer.status_code, answer.json()["code"]) == (422, "upload_mismatch")
    assert missing(bench, DIGEST) == [DIGEST]
    assert not bench.control.blobs.has(Digest.of(DATA[:-1]))


def test_what_others_have_is_missing_and_absent(bench: ControlWorld) -> None:
    put(bench, tenant="retail_b")
    assert missing(bench, DIGEST) == [DIGEST]
    theirs = bench.call("GET", f"{BLOBS}/{DIGEST}", "trainer")
    nobodys = bench.call("GET", f"{BLOBS}/{ABSENT}", "trainer")
    assert (theirs.status_code, theirs.json()["code"]) == (404, "blob_not_found")
    assert theirs.json() == nobodys.json() | {"title": theirs.json()["title"]}
    assert theirs.json()["title"] == f"no blob {DIGEST.short}"
    assert begin(bench).json()["offset"] == 0
    put(bench)
    assert bench.call("GET", f"{BLOBS}/{DIGEST}", "trainer").content == DATA


def test_the_store_is_not_even_asked_for_what_is_not_the_tenants(
    bench: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the time of the answer would tell what its text does not."""
    put(bench, tenant="retail_b")
    looked: list[str] = []

    def spy(name: str) -> Any:
        real = getattr(InMemoryBlobs, name)

        def call(self: InMemoryBlobs, *arguments: Any, **options: Any) -> Any:
            looked.append(name)
            return real(self, *arguments, **options)

        return call

    for name in ("has", "stat", "open", "read", "renew", "open_unchecked"):
        monkeypatch.setattr(InMemoryBlobs, name, spy(name))
    missing(bench, DIGEST, ABSENT)
    bench.call("GET", f"{BLOBS}/{DIGEST}", "trainer")
    bench.call("GET", f"{BLOBS}/{ABSENT}", "trainer")
    assert looked == []


def test_another_tenants_paths_do_not_exist(bench: ControlWorld) -> None:
    put(bench, tenant="retail_b")
    for method, path in (
        ("GET", f"/tenants/retail_b/blobs/{DIGEST}"),
        ("PUT", f"/tenants/retail_b/blobs/{DIGEST}"),
        ("PATCH", f"/tenants/retail_b/uploads/{DIGEST}"),
        ("GET", f"/tenants/retail_b/uploads/{DIGEST}"),
        ("GET", f"/tenants/nobody/blobs/{DIGEST}"),
    ):
        answer = bench.call(method, path, "trainer", headers={"Upload-Offset": "0"})
        assert (answer.status_code, answer.json()["code"]) == (404, "tenant_not_found")


def test_a_version_opens_what_it_is_made_of(bench: ControlWorld) -> None:
    """Pushed on the registry's own machine, so nothing was ever uploaded."""
    manifest = bench.world.catalog.manifest(bench.world.push(NAME))
    for ref in (*manifest.files, manifest.contract):
        answer = bench.call("GET", f"{BLOBS}/{ref.digest}", "trainer")
        assert (answer.status_code, Digest.of(answer.content)) == (200, ref.digest)
        theirs = f"/tenants/retail_b/blobs/{ref.digest}"
        assert bench.call("GET", theirs, "trainer", tenant="retail_b").status_code == 404
    assert missing(bench, *(ref.digest for ref in manifest.files)) == []


def test_a_version_cannot_be_made_of_another_tenants_blobs(bench: ControlWorld) -> None:
    """Publishing a guessed digest would make it readable."""
    manifest = bench.world.catalog.manifest(bench.world.push(NAME))
    files = {ref.path: ref.digest for ref in manifest.files}
    body = {
        "base": bench.world.base,
        "files": files,
        "fingerprint": None,
        "provenance": manifest.provenance.model_dump(mode="json"),
    }
    path = "/tenants/retail_b/adapters/assistant/versions"
    answer = bench.call("POST", path, "trainer", tenant="retail_b", json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "blob_not_found")
    for digest in files.values():
        data = bench.control.blobs.read(digest)
        put(bench, data, tenant="retail_b")
    answer = bench.call("POST", path, "trainer", tenant="retail_b", json=body)
    assert answer.status_code == 201, answer.text


def _version_of(bench: ControlWorld, folder: Path, **more: object) -> dict[str, object]:
    data = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return {
        "base": bench.world.base,
        "files": {name: Digest.of(each) for name, each in data.items()},
        "contents": {name: b64encode(each).decode() for name, each in data.items()},
        "provenance": {"method": "upload"},
        **more,
    }


def test_a_small_adapter_goes_along_with_its_version(bench: ControlWorld, tmp_path: Path) -> None:
    body = _version_of(bench, write_adapter(tmp_path / "adapter", tiny_base()[0], seed=3))
    path = "/tenants/bank_a/adapters/assistant/versions"
    answer = bench.call("POST", path, "trainer", json=body)
    assert answer.status_code == 201, answer.text
    manifest = Manifest.build(answer.json()["manifest"])
    assert manifest.identity() == answer.json()["version"]
    assert {file.path: file.digest for file in manifest.files} == body["files"]
    assert missing(bench, *(file.digest for file in manifest.files)) == []
    assert missing(bench, *(file.digest for file in manifest.files), tenant="retail_b") != []
    assert bench.world.catalog.verify(blobs=True) == []


@pytest.mark.parametrize(
    ("contents", "status", "code"),
    [
        ({WEIGHTS: b64encode(b"other bytes").decode()}, 422, "upload_mismatch"),
        ({WEIGHTS: "no base64"}, 400, "invalid_input"),
        ({"../" + WEIGHTS: ""}, 400, "invalid_input"),
        ({CONFIG: None}, 404, "blob_not_found"),
    ],
)
def test_what_comes_along_must_be_what_it_is_said_to_be(
    bench: ControlWorld, tmp_path: Path, contents: dict[str, str | None], status: int, code: str
) -> None:
    body = _version_of(bench, write_adapter(tmp_path / "adapter", tiny_base()[0], seed=3))
    honest = body["contents"]
    assert isinstance(honest, dict)
    body["contents"] = {name: text for name, text in (honest | contents).items() if text is not None}
    stored = list(bench.control.blobs.digests())
    answer = bench.call("POST", "/tenants/bank_a/adapters/assistant/versions", "trainer", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert list(bench.control.blobs.digests()) == stored


def test_in_chunks(bench: ControlWorld) -> None:
    answer = begin(bench)
    assert (answer.status_code, answer.json()) == (200, {"digest": DIGEST, "size": len(DATA), "offset": 0})
    answer = send(bench, 0, DATA[:20_000])
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, "20000")
    head = bench.call("HEAD", f"{UPLOADS}/{DIGEST}", "trainer")
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("20000", str(len(DATA)))
    read = bench.call("GET", f"{UPLOADS}/{DIGEST}", "trainer")
    assert read.json() == {"digest": DIGEST, "size": len(DATA), "offset": 20_000}
    assert begin(bench).json()["offset"] == 20_000
    wrong = send(bench, 0, DATA)
    assert (wrong.status_code, wrong.json()["code"]) == (409, "upload_misplaced")
    assert wrong.headers["upload-offset"] == "20000"
    answer = send(bench, 20_000, DATA[20_000:])
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(len(DATA)))
    assert bench.call("GET", f"{BLOBS}/{DIGEST}", "trainer").content == DATA
    assert bench.call("HEAD", f"{UPLOADS}/{DIGEST}", "trainer").status_code == 404
    assert begin(bench).json()["offset"] == len(DATA)


def test_refused_chunks(bench: ControlWorld) -> None:
    assert send(bench, 0, DATA).json()["code"] == "upload_not_found"
    begin(bench)
    assert send(bench, 0, DATA + b"!").json()["code"] == "upload_overrun"
    nothing = bench.call("PATCH", f"{UPLOADS}/{DIGEST}", "trainer", content=DATA)
    assert (nothing.status_code, nothing.json()["code"]) == (400, "invalid_input")
    answer = send(bench, 0, bytes(len(DATA)))
    assert (answer.status_code, answer.json()["code"]) == (422, "upload_mismatch")
    assert bench.call("HEAD", f"{UPLOADS}/{DIGEST}", "trainer").status_code == 404
    assert begin(bench, size=-1).status_code == 400
    too_large = begin(bench, size=1 << 40)
    assert (too_large.status_code, too_large.json()["code"]) == (413, "blob_too_large")


@pytest.mark.parametrize("digest", ["x", "sha256:", "sha256:" + "A" * 64, "sha512:" + "0" * 64, "..%2f.."])
def test_no_digest(bench: ControlWorld, digest: str) -> None:
    for method, path in (("GET", BLOBS), ("PUT", BLOBS), ("PATCH", UPLOADS), ("GET", UPLOADS)):
        answer = bench.call(method, f"{path}/{digest}", "trainer", headers={"Upload-Offset": "0"})
        assert answer.status_code in (400, 404), (method, answer.text)
        assert answer.json()["code"] in ("invalid_digest", "not_found")


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-9", slice(0, 10)),
        ("bytes=49990-", slice(49_990, None)),
        ("bytes=-10", slice(-10, None)),
        ("bytes=100-10000000", slice(100, None)),
        ("bytes=-10000000", slice(0, None)),
    ],
)
def test_a_part(bench: ControlWorld, header: str, part: slice) -> None:
    put(bench)
    answer = bench.call("GET", f"{BLOBS}/{DIGEST}", "trainer", headers={"Range": header})
    assert (answer.status_code, answer.content) == (206, DATA[part])
    start, end, _ = part.indices(len(DATA))
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    by_service = bench.call("GET", f"/blobs/{DIGEST}", "service", headers={"Range": header})
    assert (by_service.status_code, by_service.content) == (206, DATA[part])


@pytest.mark.parametrize("header", [None, "", "bytes=", "bytes=-", "lines=1-2", "bytes=5-3", "bytes=0-1,3-4"])
def test_what_is_no_range_is_ignored(header: str | None) -> None:
    assert asked(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_what_lies_beyond_the_end(bench: ControlWorld, header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        asked(header, 100)
    put(bench, b"x" * 100)
    answer = bench.call("GET", f"{BLOBS}/{Digest.of(b'x' * 100)}", "trainer", headers={"Range": header})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")


def test_damaged_bytes_never_arrive_whole(bench: ControlWorld) -> None:
    put(bench)
    blobs = bench.control.blobs
    assert isinstance(blobs, InMemoryBlobs)
    blobs._data[DIGEST] = flipped(DATA, 0)
    for path, role in ((f"{BLOBS}/{DIGEST}", "trainer"), (f"/blobs/{DIGEST}", "service")):
        answer = bench.call("GET", path, role)
        assert (answer.status_code, answer.json()["code"]) == (500, "blob_corrupt")


def test_large_damaged_bytes_end_before_their_end(bench: ControlWorld) -> None:
    """They are on their way before the last of them is read."""
    data = bytes(9 << 20)
    digest = Digest.of(data)
    bench.control.uploads.whole("bank_a", digest, io.BytesIO(data))
    blobs = bench.control.blobs
    assert isinstance(blobs, InMemoryBlobs)
    assert bench.call("GET", f"{BLOBS}/{digest}", "trainer").content == data
    blobs._data[digest] = flipped(data, -1)
    answer = bench.call("GET", f"{BLOBS}/{digest}", "trainer")
    assert int(answer.headers["content-length"]) == len(data) > len(answer.content)


def test_a_revoked_versions_blobs_stay_readable_for_engines(bench: ControlWorld) -> None:
    version = bench.world.push(NAME)
    manifest = bench.world.catalog.manifest(version)
    bench.world.catalog.revoke(version, reason="wrong data", actor="test")
    for ref in manifest.files:
        assert bench.call("GET", f"/blobs/{ref.digest}", "service").status_code == 200


def test_too_many_at_once_are_refused(bench: ControlWorld) -> None:
    for number in range(bench.control.uploads.limits.max_open):
        assert begin(bench, Digest.of(bytes([number])), 1).status_code == 200
    answer = begin(bench)
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_uploads")


@pytest.mark.parametrize(("role", "status"), [("trainer", 200), ("inference", 403), ("nobody", 401)])
def test_who_may_measure_an_upload(bench: ControlWorld, role: str, status: int) -> None:
    begin(bench)
    assert bench.call("HEAD", f"{UPLOADS}/{DIGEST}", role).status_code == status
    theirs = bench.call("HEAD", f"/tenants/retail_b/uploads/{DIGEST}", "trainer")
    assert theirs.status_code == 404
