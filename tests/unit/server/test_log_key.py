"""The log key of a workspace changes, and a rotation that is killed did or did not happen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry.errors import LogForked, LogKeyNotInForce, SignatureInvalid
from registry.log.entries import Head
from registry.models import Tenant
from registry.signing.keys import Signer
from registry.signing.types import LOG_HEAD
from server.assembly.catalog import initialise, open_catalog
from server.assembly.log_checks import check_since
from server.assembly.log_key import rotate
from server.workspace import Workspace

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
