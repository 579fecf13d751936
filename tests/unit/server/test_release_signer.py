from pathlib import Path

from registry.models import Tenant
from server.assembly.catalog import initialise, open_catalog, signer
from server.workspace import SIGNERS, find


def test_a_new_workspace_trusts_its_release_key(tmp_path: Path) -> None:
    workspace = initialise(tmp_path / "w")
    trusted = open_catalog(workspace).trusted()
    assert {key.role for key in trusted.values()} == set(SIGNERS)
    assert trusted[signer(workspace, "release").public.id].role == "release"


def test_a_workspace_from_before_releases_goes_on_working(tmp_path: Path) -> None:
    workspace = initialise(tmp_path / "w")
    public = signer(workspace, "release").public
    workspace.key("release").unlink()
    catalog = open_catalog(find(workspace.root))
    catalog.distrust(public.id, reason="as if it had never been there", actor="test")
    catalog.create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="test")
    assert catalog.verify() == []
