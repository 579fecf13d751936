"""Rows from files, the hub and S3, and what each says when it cannot give them. Servers are on loopback."""

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import boto3
import pytest
from moto.server import ThreadedMotoServer

from registry.digests import Digest
from tests.support.tiny_model import conversation, write_recipe
from trainer.datasets import load_rows, locate
from trainer.datasets.sources import File, HubFile, S3Object
from trainer.errors import (
    DataInvalid,
    FormatUnknown,
    SourceInvalid,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
)
from trainer.plan import make_plan
from trainer.recipes import load_recipe
from trainer.testing import InMemoryCatalog

ROWS = "".join(json.dumps(conversation(number)) + "\n" for number in range(24)).encode()
CLOSED = "http://127.0.0.1:9"
"""Nobody listens on the discard port."""


def test_a_text_names_a_place(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    assert locate(recipe, "data/train.csv") == File(tmp_path / "data" / "train.csv")
    assert locate(recipe, "/train.csv") == File(Path("/train.csv"))
    assert locate(recipe, "s3://bucket/some/train.csv") == S3Object("bucket", "some/train.csv")
    hub = HubFile("owner/name", "data/train.parquet")
    assert locate(recipe, "hf://datasets/owner/name/data/train.parquet") == hub
    pinned = HubFile("owner/name", "train.parquet", "v1")
    assert locate(recipe, "hf://datasets/owner/name/train.parquet@v1") == pinned
    assert locate(recipe, "hf://datasets/owner/name@v1/train.parquet") == pinned
    assert (hub.name, locate(recipe, "s3://bucket/some/train.csv").name) == ("train.parquet", "train.csv")


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/train.csv",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket/folder/",
        "s3:///key",
        "hf://owner/name/file.csv",
        "hf://datasets/owner/name",
        "hf://datasets/owner//file.csv",
        "hf://datasets/owner/name@a/file.csv@b",
        "hf://datasets/owner/name/file.csv@",
    ],
)
def test_a_text_that_names_no_place_says_how_to_write_one(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceInvalid) as caught:
        locate(tmp_path / "recipe.yaml", text)
    assert "s3://bucket/key" in caught.value.advice


def test_an_unknown_format_is_known_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", CLOSED)
    with pytest.raises(FormatUnknown):
        load_rows(S3Object("bucket", "rows.txt"), shape="conversations")


@pytest.fixture(scope="session")
def store() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="rows")
    client.put_object(Bucket="rows", Key="2026/train.jsonl", Body=ROWS)
    yield client
    client.close()


def test_an_object_is_read_like_a_file(s3: Any, tmp_path: Path) -> None:
    dataset = load_rows(locate(tmp_path, "s3://rows/2026/train.jsonl"), shape="conversations")
    assert (dataset.name, len(dataset.rows), dataset.digest) == ("train.jsonl", 24, Digest.of(ROWS))
    s3.put_object(Bucket="rows", Key="bad.jsonl", Body=b"{}\n")
    with pytest.raises(DataInvalid, match=r"bad\.jsonl: has the columns none"):
        load_rows(S3Object("rows", "bad.jsonl"), shape="conversations")


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(("bucket", "key"), [("rows", "gone.jsonl"), ("other", "2026/train.jsonl")])
def test_an_object_that_is_not_there(bucket: str, key: str) -> None:
    with pytest.raises(SourceMissing, match=f"there is no s3://{bucket}/{key}"):
        load_rows(S3Object(bucket, key), shape="conversations")


@pytest.mark.usefixtures("s3")
def test_an_impossible_bucket_is_refused() -> None:
    with pytest.raises(SourceInvalid, match="cannot be the name of a bucket"):
        load_rows(S3Object("a b", "train.jsonl"), shape="conversations")


@pytest.mark.usefixtures("s3")
def test_without_credentials_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SourceRefused, match="no credentials") as caught:
        load_rows(S3Object("rows", "2026/train.jsonl"), shape="conversations")
    assert "AWS_PROFILE" in caught.value.advice


@pytest.mark.usefixtures("s3")
def test_a_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", CLOSED)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SourceUnreachable) as caught:
        load_rows(S3Object("rows", "2026/train.jsonl"), shape="conversations")
    assert caught.value.status == 503


@pytest.mark.usefixtures("s3")
def test_a_recipe_trains_on_an_object(catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    here = make_plan(load_recipe(recipe), catalog=catalog, base_folder=base_folder)
    there = make_plan(
        load_recipe(recipe, overrides=["data.train=s3://rows/2026/train.jsonl"]),
        catalog=catalog,
        base_folder=base_folder,
    )
    assert there.dataset.rows == here.dataset.rows
    assert there.plan.data == here.plan.data


COMMIT = "a" * 40


class _Hub(BaseHTTPRequestHandler):
    """As much of the hub as one download asks for."""

    files: ClassVar[dict[str, bytes]] = {"/datasets/owner/name/resolve/{}/data/train.jsonl": ROWS}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.asked.append(self.path)
        known = {name.format(revision): content for name, content in self.files.items()
                 for revision in ("main", "v1", COMMIT)}  # fmt: skip
        if self.path in known:
            content, status, error = known[self.path], 200, None
        elif self.path.startswith("/datasets/owner/gated/"):
            content, status, error = b"", 403, "GatedRepo"
        elif not self.path.startswith("/datasets/owner/name/"):
            content, status, error = b"", 401, "RepoNotFound"
        elif "/resolve/v9/" in self.path:
            content, status, error = b"", 404, "RevisionNotFound"
        else:
            content, status, error = b"", 404, "EntryNotFound"
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{Digest.of(content).hex}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[_Hub]]:
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
    thread.start()
    # The client reads its environment when it is imported.
    endpoint = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    _Hub.asked.clear()
    yield _Hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_of_the_hub_is_read_and_kept(hub: type[_Hub], tmp_path: Path) -> None:
    source = locate(tmp_path, "hf://datasets/owner/name/data/train.jsonl@v1")
    dataset = load_rows(source, shape="conversations")
    assert (dataset.name, len(dataset.rows), dataset.digest) == ("train.jsonl", 24, Digest.of(ROWS))
    assert any("/resolve/v1/" in path for path in hub.asked)
    before = len(hub.asked)
    assert load_rows(source, shape="conversations") == dataset
    assert len(hub.asked) == before + 1, "a cached file is asked for, not fetched"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("owner/name/gone.jsonl", SourceMissing, "owner/name has no file gone.jsonl"),
        ("owner/name/data/train.jsonl@v9", SourceMissing, "owner/name has no revision 'v9'"),
        ("owner/other/train.jsonl", SourceMissing, "the hub shows no data set owner/other to you"),
        ("owner/gated/train.jsonl", SourceRefused, "owner/gated is gated"),
        ("owner/na--me/train.jsonl", SourceInvalid, "'owner/na--me' is not a name that the hub allows"),
    ],
)
def test_what_the_hub_does_not_give(tmp_path: Path, text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        load_rows(locate(tmp_path, f"hf://datasets/{text}"), shape="conversations")


@pytest.mark.usefixtures("hub")
def test_offline_only_the_cache_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    known = locate(tmp_path, "hf://datasets/owner/name/data/train.jsonl")
    dataset = load_rows(known, shape="conversations")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_rows(known, shape="conversations") == dataset
    with pytest.raises(SourceUnreachable, match=r"cannot be reached, and other\.jsonl of owner/name is not"):
        load_rows(locate(tmp_path, "hf://datasets/owner/name/other.jsonl"), shape="conversations")
