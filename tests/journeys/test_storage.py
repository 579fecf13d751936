"""A registry on PostgreSQL, by the commands and the process that a person starts."""

import json
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.errors import TenonError
from server.assembly.catalog import initialise
from server.assembly.stack import Ports
from server.workspace import find
from tests.journeys.commands import surroundings, tenon
from tests.support.postgres import PostgresServer


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    with postgres.database(migrated=False) as made:
        yield made


@pytest.fixture
def url_file(url: str, tmp_path: Path) -> Path:
    file = tmp_path / "url"
    file.write_text(url + "\n")
    return file


@contextmanager
def _control(workspace: Path, url_file: Path) -> Iterator[str]:
    port = Ports.free().vllm
    settings = {
        "TENON_WORKSPACE": str(workspace),
        "TENON_SERVICE_TOKEN_FILE": str(workspace / "secrets" / "service-token"),
        "TENON_CONTROL_PORT": str(port),
        "TENON_DATABASE_URL_FILE": str(url_file),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "server.cli.main", "serve", "control"],
        env=surroundings() | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _get(url: str, token: str = "") -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    while True:  # pytest's timeout ends it
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError:
            raise
        except OSError:
            continue


def test_a_workspace_on_postgresql(url_file: Path, tmp_path: Path) -> None:
    made = tenon("init", "work", "--database-url-file", str(url_file), cwd=tmp_path)
    assert made.code == 0, made.err
    kept = find(tmp_path / "work").database_url
    assert kept.read_text() == url_file.read_text()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert tenon("tenant", "add", "bank_a", "-w", "work", cwd=tmp_path).code == 0
    listed = tenon("tenant", "list", "--json", "-w", "work", cwd=tmp_path)
    assert [tenant["id"] for tenant in json.loads(listed.out)] == ["bank_a"]
    assert tenon("log", "verify", "-w", "work", cwd=tmp_path).code == 0
    assert not (tmp_path / "work" / "registry.db").exists()
    for again in (("init", "--upgrade", "work"), ("init", "--upgrade", "--database-url-file", str(url_file))):
        assert tenon(*again, cwd=tmp_path).code == 0

    other = tenon("init", "other", "--database-url-file", str(url_file), cwd=tmp_path)
    assert other.code == 1
    assert "holds a registry already" in other.err
    assert not (tmp_path / "other").exists()

    key = json.loads(tenon("key", "issue", "--json", "-w", "work", cwd=tmp_path).out)["secret"]
    with _control(tmp_path / "work", url_file) as address:
        found = json.loads(_get(f"{address}/api/v1/tenants/bank_a", key))
        assert found["id"] == "bank_a"


def test_the_setting_says_where_without_a_copy(url_file: Path, tmp_path: Path) -> None:
    setting = {"TENON_DATABASE_URL_FILE": str(url_file)}
    assert tenon("init", "work", cwd=tmp_path, environment=setting).code == 0
    assert not find(tmp_path / "work").database_url.exists()
    assert tenon("tenant", "add", "bank_a", "-w", "work", cwd=tmp_path, environment=setting).code == 0
    without = tenon("tenant", "list", "-w", "work", cwd=tmp_path)
    assert without.code == 1  # and not an empty registry
    assert "there is no database here" in without.err


UNUSABLE = {
    "no file": (None, "cannot be read", ""),
    "nothing in it": ("", "is empty", ""),
    "another kind": ("mysql://tenon:hunter2@db/tenon", "no PostgreSQL URL", "postgresql://"),
    "no server": (
        "postgresql://tenon:hunter2@/tenon?host={folder}",
        "cannot be reached",
        "that the server runs",
    ),
    "no database": ("postgresql://tenon@/nothing?host={server}", "does not exist", "docs/guides/storage.md"),
    "a superuser": ("postgresql://postgres@/{name}?host={server}", "does not bind this role", "SUPERUSER"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_cannot_work_says_what_to_do(
    postgres: PostgresServer, url: str, tmp_path: Path, what: str
) -> None:
    content, said, advice = UNUSABLE[what]
    if content is not None:
        name = url.partition("@/")[2].partition("?")[0]
        (tmp_path / "url").write_text(content.format(folder=tmp_path, server=postgres.folder, name=name))
    with pytest.raises(TenonError, match=said) as refused:
        initialise(tmp_path / "work", database_url_file=tmp_path / "url")
    assert advice in refused.value.advice
    assert "hunter2" not in refused.value.message + refused.value.advice
    assert not (tmp_path / "work").exists()
