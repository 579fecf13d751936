"""``tenon log verify`` believes the keys it is given, needs no private one, and ignores nothing."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.models import Role, Tenant
from registry.signing.keys import Signer
from server.assembly.catalog import initialise, open_catalog
from server.assembly.log_key import rotate
from server.workspace import Workspace
from tests.journeys.commands import Done, tenon_here
from tests.support.registries import signer
from tests.support.remote import Remote, remote


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("TENON_WORKSPACE", str(tmp_path / "work"))
    made = initialise(tmp_path / "work")
    open_catalog(made).create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="test")
    return made


def keys(path: Path, *signers: Signer) -> str:
    path.write_text(json.dumps([one.public.model_dump(mode="json") for one in signers]))
    return str(path)


def verify(*options: str) -> Done:
    return tenon_here("log", "verify", *options)


def test_a_stranger_is_not_believed(workspace: Workspace, tmp_path: Path) -> None:
    own = keys(tmp_path / "own.json", Signer.load(workspace.key("log")))
    assert json.loads(verify("--trust", own, "--json").out)["trusted"] is True
    assert json.loads(verify("--json").out)["trusted"] is False
    strange = verify("--trust", keys(tmp_path / "a.json", Signer.generate("log")))
    assert (strange.code, "no valid signature by a trusted log key" in strange.err) == (1, True)
    for trust in (tmp_path / "nowhere.json", Path(keys(tmp_path / "t.json", Signer.generate("trainer")))):
        refused = verify("--trust", str(trust))
        assert (refused.code, "ok:" in refused.err) == (1, False)


def test_a_history_signed_again_by_who_owns_the_folder(workspace: Workspace, tmp_path: Path) -> None:
    """Another workspace under the same path: all of it fits, but for the key that the auditor was given."""
    given = keys(tmp_path / "given.json", Signer.load(workspace.key("log")))
    workspace.root.rename(tmp_path / "before")
    forged = initialise(tmp_path / "work")
    open_catalog(forged).create_tenant(Tenant(id="bank_a", display_name="Forged"), actor="test")
    assert verify().code == 0
    assert verify("--trust", given).code == 1


def test_an_auditor_holds_no_private_key(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "head.json").write_text(tenon_here("log", "head", "--json").out)
    old = Signer.load(workspace.key("log"))
    rotate(workspace, open_catalog(workspace), actor="test")
    new = Signer.load(workspace.key("log"))
    workspace.key("log").unlink()
    for trust in ((old,), (new,), (old, new)):
        given = keys(tmp_path / "given.json", *trust)
        for options in ((), ("--since", str(tmp_path / "head.json")), ("--no-state", "--no-records")):
            done = verify("--trust", given, *options)
            assert (done.code, "ok:" in done.err) == (0, True), done.err
    alone = verify()
    assert (alone.code, "--trust" in alone.err) == (1, True)


def test_without_a_replay_blobs_are_read_all_the_same(workspace: Workspace) -> None:
    from registry.digests import Digest
    from server.assembly.catalog import open_auditor

    with open_auditor(workspace) as auditor:
        auditor.blobs.put(io.BytesIO(b"stored"))
    name = Digest.of(b"stored").hex
    (file,) = [path for path in workspace.blobs.rglob("*") if path.is_file() and name[4:] in path.name]
    file.chmod(0o600)
    file.write_bytes(b"spoilt")
    for options in ((), ("--no-state",)):
        assert verify(*options).code == 1
    assert verify("--no-state", "--no-blobs").code == 0


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with remote(tmp_path / "registry") as found:
        _, secret = found.world.catalog.issue_key("bank_a", role=Role.TENANT_ADMIN, actor="test")
        (tmp_path / "key").write_text(secret)
        monkeypatch.setenv("TENON_WORKSPACE", found.url)
        monkeypatch.setenv("TENON_KEY_FILE", str(tmp_path / "key"))
        yield found


def test_from_afar_a_tenant_follows_the_keys(served: Remote, tmp_path: Path) -> None:
    (tmp_path / "head.json").write_text(tenon_here("log", "head", "--json").out)
    since = ("--since", str(tmp_path / "head.json"))
    served.world.catalog.rotate_log_key(signer("log", 1), actor="test")
    served.world.catalog.issue_key("retail_b", role=Role.INFERENCE, actor="test")
    unknown = verify(*since)
    assert (unknown.code, "not proven: who signed" in unknown.err) == (0, True)
    for number in (0, 1):
        done = verify(*since, "--trust", keys(tmp_path / "k.json", signer("log", number)))
        assert (done.code, "not proven" in done.err) == (0, False), done.err
    assert verify(*since, "--trust", keys(tmp_path / "k.json", signer("log", 2))).code == 1


def test_what_has_no_effect_is_refused(served: Remote, tmp_path: Path) -> None:
    (tmp_path / "head.json").write_text(tenon_here("log", "head", "--json").out)
    assert "[folder_needed]" in verify().err
    for options in (
        ("--since", str(tmp_path / "head.json"), "--no-state"),
        ("--since", str(tmp_path / "head.json"), "--no-blobs", "--no-records"),
        ("--file", "x.jsonl", "--no-records"),
        ("--file", "x.jsonl", "--since", "head.json"),
        ("--file", "x.jsonl", "-w", "work"),
    ):
        done = verify(*options)
        assert (done.code, "leave out" in done.err) == (2, True), done.err
