"""What people call their adapter: a folder, an archive, a repository of the hub."""

import json
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registry.errors import AdapterFileMissing
from server.assembly.sources import opened
from server.errors import SourceNotFound
from tests.journeys.commands import ROOT, surroundings
from tests.support.adapters import tiny_base, write_adapter

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter", tiny_base()[0])


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_a_folder_is_itself(adapter: Path) -> None:
    with opened(str(adapter), note=lambda _: None) as found:
        assert (found.folder, found.method) == (adapter, "upload")


def test_an_archive_is_unpacked_and_gone_afterwards(adapter: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for name in FILES:
            made.write(adapter / name, f"adapter/{name}")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as packed:
        packed.add(adapter, "adapter")
    for archive in ("a.zip", "a.tar.gz"):
        with opened(str(tmp_path / archive), note=lambda _: None) as found:
            assert contents(found.folder) == contents(adapter)
            assert found.method == "upload"
        assert not found.folder.exists()


@pytest.mark.parametrize(
    "source", ["nowhere", "./org/name", "/org/name", "../x", "a/b/c", "org/name@", "org name/x"]
)
def test_what_is_neither_is_said_to_be_neither(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceNotFound), opened(source, note=lambda _: None):
        pass


class Hub(ThreadingHTTPServer):
    """As much of the hub as a snapshot takes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files = files
        self.fetched: list[str] = []


class _Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        files, path = self.server.files, self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path.startswith(f"/org/name/resolve/{COMMIT}/") and name in files:
            if self.command == "GET":
                self.server.fetched.append(name)
            self._answer(files[name], {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT})
        elif path.startswith("/api/models/org/name/tree/"):
            tree = [{"type": "file", "path": each, "oid": each, "size": len(files[each])} for each in files]
            self._answer(json.dumps(tree).encode(), {})
        elif path.startswith("/api/models/org/name"):
            siblings = [{"rfilename": each} for each in files]
            self._answer(json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode(), {})
        else:
            self.send_error(404)

    def _answer(self, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def hub(adapter: Path) -> Iterator[Hub]:
    files = contents(adapter) | {"training_args.bin": b"\x80\x04", "model.safetensors": b"gigabytes"}
    with Hub(files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def from_hub(hub: Hub, source: str, home: Path) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: the hub's client reads its address when it is imported."""
    program = (
        "import sys, json; from server.assembly.sources import opened; from registry import intake\n"
        "with opened(sys.argv[1], note=lambda said: print(said, file=sys.stderr)) as found:\n"
        "    files = intake.adapter_files(found.folder)\n"
        "    fetched = {name: path.read_bytes().hex() for name, path in files.items()}\n"
        "    print(json.dumps([found.method, fetched]))"
    )
    environment = surroundings() | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", program, source],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_repository_gives_two_files_of_one_commit(hub: Hub, adapter: Path, tmp_path: Path) -> None:
    done = from_hub(hub, "org/name@main", tmp_path / "home")
    assert done.returncode == 0, done.stderr
    method, fetched = json.loads(done.stdout)
    assert method == f"hub:org/name@{COMMIT}"
    assert {name: bytes.fromhex(data) for name, data in fetched.items()} == contents(adapter)
    assert sorted(hub.fetched) == sorted(FILES)  # no pickles, no gigabytes
    assert COMMIT[:12] in done.stderr


def test_a_repository_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    done = from_hub(hub, "org/other", tmp_path / "home")
    assert "SourceNotFound: could not fetch org/other" in done.stderr
    del hub.files["adapter_config.json"]
    done = from_hub(hub, "org/name", tmp_path / "home")
    assert f"{AdapterFileMissing.__name__}: org/name holds no adapter_config.json" in done.stderr
