"""The log key of a workspace changes, and a rotation that is killed did or did not happen."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.catalog.local.catalog import LocalCatalog
from registry.errors import InvalidDocument, LogForked, LogKeyNotInForce, SignatureInvalid
from registry.log.entries import Head
from registry.log.handovers import KeyHistory
from registry.log.statements import Consistency
from registry.models import Tenant
from registry.signing.keys import Signer
from registry.signing.types import LOG_HEAD
from server.assembly.catalog import initialise, open_catalog
from server.assembly.log_checks import check_since
from server.assembly.log_key import rotate
from server.workspace import Workspace, find

ROOT = Path(__file__).parents[3]
KILLED = """
import os, signal, sys
from pathlib import Path
from server.assembly import log_key
from server.assembly.catalog import open_catalog
from server.workspace import find
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
workspace = find(Path(sys.argv[1]))
catalog = open_catalog(workspace)
if sys.argv[2] == "before":
    type(catalog).rotate_log_key = die
else:
    log_key._replace = die
log_key.rotate(workspace, catalog, actor="test")
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return initialise(tmp_path / "registry")


def _write(workspace: Workspace, tenant: str) -> None:
    open_catalog(workspace).create_tenant(Tenant(id=tenant, display_name="x"), actor="test")


def test_the_old_key_is_gone_and_the_new_one_signs(workspace: Workspace) -> None:
    running = open_catalog(workspace)
    old = running.log_key()
    key = rotate(workspace, open_catalog(workspace), actor="test")
    assert Signer.load(workspace.key("log")).public == key != old
    assert {path.name for path in workspace.key("log").parent.glob("log*")} == {"log.key"}
    _write(workspace, "a")
    assert open_catalog(workspace).verify() == []
    with pytest.raises(LogKeyNotInForce):
        running.create_tenant(Tenant(id="b", display_name="x"), actor="test")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rotation_that_is_killed(workspace: Workspace, moment: str) -> None:
    old = open_catalog(workspace).log_key()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(workspace.root), moment],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode < 0
    assert (open_catalog(workspace).log_key() == old) == (moment == "before")
    _write(workspace, "a")
    assert open_catalog(workspace).verify() == []
    rotate(workspace, open_catalog(workspace), actor="test")
    _write(workspace, "b")
    catalog = open_catalog(workspace)
    assert catalog.verify() == []
    rotations = [entry for entry in catalog.entries() if entry.kind == "log.key_rotated"]
    assert len(rotations) == (1 if moment == "before" else 2)


def test_a_kept_head_and_a_log_that_grew_forked_or_shrank(workspace: Workspace) -> None:
    catalog = open_catalog(workspace)
    kept, trusted = catalog.head(), catalog.trusted()
    _write(workspace, "a")
    old, new, proof = check_since(catalog, kept, trusted=trusted)
    assert (old.size + 1, proof.second) == (new.size, new.size)
    signer = Signer.load(workspace.key("log"))
    size = new.size
    for forged in (
        Head(size=size, root=old.root, at=old.at),
        Head(size=old.size - 1, root=old.root, at=old.at),
        Head(size=size + 5, root=new.root, at=new.at),
    ):
        with pytest.raises(LogForked):
            check_since(catalog, signer.sign(LOG_HEAD, forged.canonical()), trusted=trusted)
    with pytest.raises(SignatureInvalid):
        check_since(catalog, Signer.generate("log").sign(LOG_HEAD, kept.body()), trusted=trusted)
    assert json.loads(kept.body())["size"] == old.size


def test_a_thief_of_the_old_key_deceives_nobody_who_knows_the_new_one(
    workspace: Workspace, tmp_path: Path
) -> None:
    """He signs a newer head of the log as it is, hides the rotation from it, or shows a fork from before."""
    catalog = open_catalog(workspace)
    kept, stolen = catalog.head(), Signer.load(workspace.key("log"))
    shutil.copytree(workspace.root, tmp_path / "fork")
    rotate(workspace, catalog, actor="test")
    _write(workspace, "a")
    fork = find(tmp_path / "fork")
    _write(fork, "b")
    new = Signer.load(workspace.key("log")).public
    both = {key.id: key for key in (stolen.public, new)}
    honest = catalog.key_history()
    forged = stolen.sign(LOG_HEAD, honest.head.body())
    for trusted in (both, {new.id: new}):
        check_since(catalog, kept, trusted=trusted)
        for shown in (
            honest.model_copy(update={"head": forged}),
            honest.model_copy(update={"head": forged, "successions": ()}),
            honest.model_copy(update={"successions": ()}),
            open_catalog(fork).key_history(),
        ):
            with pytest.raises(SignatureInvalid):
                check_since(_Shown(shown, catalog), kept, trusted=trusted)


def test_a_rotation_that_the_log_does_not_hold(workspace: Workspace) -> None:
    """Its head and its proofs are of another entry."""
    catalog = open_catalog(workspace)
    kept, old = catalog.head(), catalog.log_key()
    rotate(workspace, catalog, actor="test")
    honest = catalog.key_history()
    (one,) = honest.successions
    thief = Signer.generate("log").public
    entry = one.entry.replace(catalog.log_key().ed25519, thief.ed25519).replace(
        catalog.log_key().id, thief.id
    )
    (first,) = catalog.entries(0, 1)
    for changed in (
        one.model_copy(update={"entry": entry}),
        one.model_copy(update={"entry": first.canonical().decode()}),
        one.model_copy(update={"proof": one.proof[:-1]}),
        one.model_copy(update={"handover": one.handover.model_copy(update={"head": kept})}),
    ):
        shown = honest.model_copy(update={"successions": (changed,)})
        with pytest.raises((SignatureInvalid, InvalidDocument)):
            check_since(_Shown(shown, catalog), kept, trusted={old.id: old})


@dataclass(frozen=True)
class _Shown:
    """A registry that tells of its keys what it likes."""

    told: KeyHistory
    catalog: LocalCatalog

    def key_history(self) -> KeyHistory:
        return self.told

    def consistency(self, first: int, second: int | None = None) -> Consistency:
        return self.catalog.consistency(first, second)
