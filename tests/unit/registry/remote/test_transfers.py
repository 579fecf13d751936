"""Bytes on their way to a registry and back: lost answers, torn streams, lies."""

import json
import re
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from registry.catalog.remote.catalog import RemoteCatalog
from registry.catalog.remote.errors import AnswerInvalid, FileChanged, PullBusy, Unreachable
from registry.catalog.remote.pull import _partial
from registry.catalog.remote.push import AT_ONCE
from registry.catalog.remote.uploads import PIECE, WHOLE
from registry.catalog.remote.wire import Wire
from registry.digests import Digest
from registry.errors import AlreadyExists, BlobCorrupt, VersionRevoked
from registry.fingerprint import Fingerprint
from registry.manifests import BlobRef, LoraShape, Manifest, Provenance
from registry.names import AdapterName, Ref
from tests.support.adapters import tiny_fingerprint

NAME = AdapterName("bank_a", "assistant")
BASE = Digest.of(b"base")
Fault = Callable[[httpx.Request], Exception | httpx.Response | None]


class Registry:
    """What the API promises about blobs and versions, in memory. ``before`` and ``after`` lose messages."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}
        self.manifests: dict[str, bytes] = {}
        self.state = "pushed"
        self.sent = 0
        self.calls: list[str] = []
        self.before: Fault = lambda _: None
        self.after: Fault = lambda _: None
        self.tamper: Callable[[Manifest], Manifest] = lambda manifest: manifest
        self.told: Callable[[Manifest], Manifest] = lambda manifest: manifest

    def catalog(self) -> RemoteCatalog:
        wire = Wire(
            "https://tenon.test", "k", transport=httpx.MockTransport(self._respond), pause=lambda _: None
        )
        return RemoteCatalog(wire)

    def _respond(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1/tenants/bank_a")
        self.calls.append(f"{request.method} {re.sub('sha256:[0-9a-f]*', '…', path)}")
        if (fault := self.before(request)) is None:
            answer = self._carry_out(request.method, path, request)
            fault = self.after(request)
            if fault is None:
                return answer
        if isinstance(fault, Exception):
            raise fault
        return fault

    def _carry_out(self, method: str, path: str, request: httpx.Request) -> httpx.Response:
        if path == "/uploads" or path.startswith(("/blobs/", "/uploads/")):
            return self._bytes(method, path, request)
        if path == "/adapters/assistant/versions":
            return self._publish(json.loads(request.content))
        version = re.search("sha256:[0-9a-f]{64}", path)
        assert version is not None
        if path.endswith("/manifest"):
            return httpx.Response(200, content=self.manifests[version[0]])
        return httpx.Response(
            200,
            json={"version": version[0], "state": self.state, "pushed_at": "", "aliases": [], "slots": []},
        )

    def _bytes(self, method: str, path: str, request: httpx.Request) -> httpx.Response:
        digest = path.rpartition("/")[2]
        if path == "/blobs/missing":
            asked = json.loads(request.content)["digests"]
            return httpx.Response(200, json={"missing": [one for one in asked if one not in self.blobs]})
        if path == "/uploads":
            wanted = json.loads(request.content)
            have = self.blobs.get(wanted["digest"], self.uploads.setdefault(wanted["digest"], bytearray()))
            return httpx.Response(200, json={"offset": len(have), "size": wanted["size"]})
        if path.startswith("/uploads/"):
            return self._append(digest, request)
        if method == "GET":
            return httpx.Response(200, stream=httpx.ByteStream(self.blobs[digest]))
        self.sent += len(request.content)
        return self._store(digest, request.content)

    def _append(self, digest: str, request: httpx.Request) -> httpx.Response:
        have = self.uploads[digest]
        if int(request.headers["Upload-Offset"]) != len(have):
            return httpx.Response(409, json={"code": "upload_misplaced", "title": "elsewhere"})
        have += request.content
        self.sent += len(request.content)
        offset = str(len(have))
        if Digest.of(bytes(have)) == digest:
            self.blobs[digest] = bytes(self.uploads.pop(digest))
        return httpx.Response(204, headers={"Upload-Offset": offset})

    def _store(self, digest: str, data: bytes) -> httpx.Response:
        assert Digest.of(data) == digest
        self.blobs[digest] = data
        return httpx.Response(204)

    def _publish(self, wanted: dict[str, object]) -> httpx.Response:
        files, contents = wanted["files"], wanted["contents"]
        assert isinstance(files, dict)
        assert isinstance(contents, dict)
        for path, text in contents.items():
            data = b64decode(text)
            self.sent += len(data)
            self._store(files[path], data)
        manifest = self.tamper(
            self.manifest(
                {path: self.blobs[digest] for path, digest in files.items()},
                fingerprint=None
                if wanted["fingerprint"] is None
                else Fingerprint.build(wanted["fingerprint"]),
            )
        )
        self.manifests[manifest.identity()] = manifest.canonical()
        told = self.told(manifest)
        return httpx.Response(
            201, json={"version": manifest.identity(), "manifest": told.model_dump(mode="json")}
        )

    def manifest(self, files: dict[str, bytes], fingerprint: Fingerprint | None = None) -> Manifest:
        def ref(path: str, data: bytes) -> BlobRef:
            return BlobRef(path=path, digest=Digest.of(data), size=len(data))

        return Manifest(
            tenant=NAME.tenant,
            adapter=NAME.adapter,
            base=BASE,
            lora=LoraShape(rank=4, alpha=8, targets=("q_proj",)),
            files=tuple(ref(path, data) for path, data in sorted(files.items())),
            contract=ref("contract.json", b"{}"),
            fingerprint=None if fingerprint is None else ref("fingerprint.json", fingerprint.canonical()),
            provenance=Provenance(method="upload"),
        )

    def holding(self, files: dict[str, bytes]) -> Digest:
        manifest = self.manifest(files)
        self.manifests[manifest.identity()] = manifest.canonical()
        self.blobs.update({Digest.of(data): data for data in files.values()})
        return manifest.identity()


def folder_of(tmp_path: Path, weights: bytes) -> Path:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_bytes(b'{"r": 4}')
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(weights)
    return tmp_path / "adapter"


def push(registry: Registry, folder: Path, fingerprint: Fingerprint | None = None, **more: object) -> Digest:
    return registry.catalog().push(
        NAME,
        folder,
        base=BASE,
        fingerprint=fingerprint,
        provenance=Provenance(method="upload"),
        actor="t",
        **more,  # type: ignore[arg-type]
    )


LARGE = bytes(range(256)) * ((2 * PIECE + 5000) // 256)


def test_only_what_is_missing_travels_and_the_bar_tells_all_of_it(tmp_path: Path) -> None:
    registry, folder = Registry(), folder_of(tmp_path, b"w" * 1000)
    registry.blobs[Digest.of(b'{"r": 4}')] = b'{"r": 4}'
    told: list[tuple[int, int]] = []
    push(registry, folder, tiny_fingerprint(BASE), progress=lambda done, total: told.append((done, total)))
    assert (registry.sent, told) == (1000, [(8, 1008), (1008, 1008)])
    push(registry, folder, tiny_fingerprint(BASE))
    assert registry.sent == 1000


def test_a_large_file_goes_in_pieces(tmp_path: Path) -> None:
    assert len(LARGE) > WHOLE
    registry, folder = Registry(), folder_of(tmp_path, LARGE)
    told: list[int] = []
    push(registry, folder, progress=lambda done, _: told.append(done))
    assert registry.calls.count("PATCH /uploads/…") == 3
    assert told == sorted(told)
    assert told[-1] == len(LARGE) + 8


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_lost_message_costs_at_most_its_own_piece(tmp_path: Path, lost: str) -> None:
    registry, folder = Registry(), folder_of(tmp_path, LARGE)
    patches = 0

    def every_second(request: httpx.Request) -> Exception | None:
        nonlocal patches
        patches += request.method == "PATCH"
        return httpx.ReadError("cut") if request.method == "PATCH" and patches % 2 else None

    setattr(registry, lost, every_second)
    push(registry, folder)
    assert registry.sent == len(LARGE) + 8  # each byte was taken once
    assert registry.blobs[Digest.of(LARGE)] == LARGE


def test_another_attempt_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    registry, folder = Registry(), folder_of(tmp_path, LARGE)
    registry.before = lambda request: (
        httpx.ConnectError("gone") if request.headers.get("Upload-Offset") not in (None, "0") else None
    )
    with pytest.raises(Unreachable):
        push(registry, folder)
    assert registry.sent == PIECE  # the few bytes beside it go with the version
    registry.before = lambda _: None
    push(registry, folder)
    assert registry.sent == len(LARGE) + 8


def test_a_registry_that_takes_nothing_is_left(tmp_path: Path) -> None:
    registry, folder = Registry(), folder_of(tmp_path, LARGE)
    registry.before = lambda request: (
        httpx.Response(204, headers={"Upload-Offset": "0"}) if request.method == "PATCH" else None
    )
    with pytest.raises(AnswerInvalid):
        push(registry, folder)
    registry.before = lambda request: (
        httpx.Response(409, json={"code": "upload_misplaced", "title": "no"})
        if request.method == "PATCH"
        else None
    )
    with pytest.raises(Exception, match="no"):
        push(registry, folder)
    assert len(registry.calls) < 30


def test_a_file_that_changes_while_it_is_pushed_is_not_published(tmp_path: Path) -> None:
    registry, folder = Registry(), folder_of(tmp_path, b"w" * 1000)
    weights = folder / "adapter_model.safetensors"

    def overwrite(request: httpx.Request) -> None:
        if request.url.path.endswith("/missing"):
            weights.write_bytes(b"x" * 1000)

    registry.before = overwrite
    with pytest.raises(FileChanged):
        push(registry, folder)
    assert registry.manifests == {}


@pytest.mark.parametrize(
    "change",
    [
        {"adapter": "other"},
        {"base": Digest.of(b"other")},
        {"provenance": Provenance(method="stolen")},
        {"fingerprint": None},
        {"files": ()},
    ],
)
def test_a_registry_that_stored_something_else_is_found_out(
    tmp_path: Path, change: dict[str, object]
) -> None:
    registry, folder = Registry(), folder_of(tmp_path, b"w")
    registry.tamper = lambda manifest: manifest.model_copy(update=change)
    with pytest.raises(AnswerInvalid):
        push(registry, folder, tiny_fingerprint(BASE))


def test_a_registry_that_says_one_version_and_tells_another_is_found_out(tmp_path: Path) -> None:
    registry, folder = Registry(), folder_of(tmp_path, b"w")
    registry.tamper = lambda manifest: manifest.model_copy(update={"adapter": "other"})
    registry.told = lambda manifest: manifest.model_copy(update={"adapter": NAME.adapter})
    with pytest.raises(AnswerInvalid):
        push(registry, folder, tiny_fingerprint(BASE))


@pytest.mark.parametrize(
    ("weights", "requests"),
    [
        (b"w" * 1000, ["POST /blobs/missing", "POST /adapters/assistant/versions"]),
        (
            b"w" * (AT_ONCE + 1),
            ["POST /blobs/missing", "PUT /blobs/…", "POST /adapters/assistant/versions"],
        ),
    ],
    ids=["small", "large"],
)
def test_what_is_small_goes_along_with_the_version(
    tmp_path: Path, weights: bytes, requests: list[str]
) -> None:
    registry = Registry()
    push(registry, folder_of(tmp_path, weights))
    assert registry.calls == requests
    assert registry.sent == len(weights) + 8


def test_a_manifest_must_be_its_digest(tmp_path: Path) -> None:
    registry, folder = Registry(), folder_of(tmp_path, b"w")
    version = push(registry, folder)
    registry.manifests[version] += b" "
    catalog = registry.catalog()
    with pytest.raises(AnswerInvalid):
        catalog.manifest(catalog.resolve(Ref(NAME, version=version)))


FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"w" * 100_000}


def pull(registry: Registry, version: Digest, folder: Path) -> Manifest:
    catalog = registry.catalog()
    return catalog.export(catalog.resolve(Ref(NAME, version=version)), folder)


def test_a_pull_is_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    registry = Registry()
    version = registry.holding(FILES)
    for _ in range(2):  # the second one finds it done
        pull(registry, version, tmp_path / "out")
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert registry.calls.count("GET /blobs/…") == 2


class _Cut(httpx.SyncByteStream):
    def __iter__(self):  # type: ignore[no-untyped-def]
        yield b"{"
        raise httpx.ReadError("cut")


def test_a_torn_stream_is_asked_for_again(tmp_path: Path) -> None:
    registry = Registry()
    version = registry.holding(FILES)
    torn = iter([True, True, False, True, False, False])
    registry.before = lambda request: (
        httpx.Response(200, stream=_Cut()) if "/blobs/" in request.url.path and next(torn) else None
    )
    pull(registry, version, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == FILES


def test_a_pull_that_stopped_keeps_what_it_had_checked_and_shows_nothing(tmp_path: Path) -> None:
    registry = Registry()
    version = registry.holding(FILES)
    weights = Digest.of(FILES["adapter_model.safetensors"])
    registry.before = lambda request: httpx.ConnectError("x") if weights in str(request.url) else None
    with pytest.raises(Unreachable):
        pull(registry, version, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (partial,) = tmp_path.iterdir()
    (partial / ".adapter_model.safetensors.unchecked").write_bytes(b"half")  # as a kill -9 leaves it
    registry.before = lambda _: None
    registry.calls.clear()
    pull(registry, version, tmp_path / "out")
    assert registry.calls.count("GET /blobs/…") == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == FILES


def test_a_kept_file_that_was_touched_is_fetched_again(tmp_path: Path) -> None:
    registry = Registry()
    version = registry.holding(FILES)
    partial = tmp_path / f".out.{version.hex[:16]}.partial"
    partial.mkdir()
    (partial / "adapter_config.json").write_bytes(b"[]")
    pull(registry, version, tmp_path / "out")
    assert (tmp_path / "out/adapter_config.json").read_bytes() == b"{}"


@pytest.mark.parametrize("said", [b"w" * 99_999, b"w" * 100_001, b"x" * 100_000, b""])
def test_bytes_that_are_not_the_digests_never_appear(tmp_path: Path, said: bytes) -> None:
    registry = Registry()
    version = registry.holding(FILES)
    registry.blobs[Digest.of(FILES["adapter_model.safetensors"])] = said
    with pytest.raises(BlobCorrupt):
        pull(registry, version, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.unchecked"))


def test_a_revoked_version_and_a_full_folder_are_refused(tmp_path: Path) -> None:
    registry = Registry()
    version = registry.holding(FILES)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(AlreadyExists):
        pull(registry, version, tmp_path / "full")
    registry.state = "revoked"
    with pytest.raises(VersionRevoked):
        pull(registry, version, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_two_pulls_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    registry = Registry()
    version = registry.holding(FILES)
    with _partial(tmp_path / "out", version), pytest.raises(PullBusy):
        pull(registry, version, tmp_path / "out")
