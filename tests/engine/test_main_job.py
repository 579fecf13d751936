"""The main job and the tutorial, exactly as a person runs them: real training, real vLLM."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.models import Role, Tenant
from registry.names import Ref
from server.assembly.catalog import open_catalog
from server.workspace import Workspace
from tests.support.remote import remote

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(1200)]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1100,
    )


def test_the_demo_trains_attests_serves_and_proves(tmp_path: Path) -> None:
    first = run(["tenon", "demo", "run", "-w", "demo"], tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    versions = set(re.findall(r"live: (sha256:[0-9a-f]{64})", first.stderr))
    assert len(versions) == 3
    for said in (
        "bank_a",
        "retail_b",
        "saas_c",
        "verified: answered by",
        "Audit chain verified",
        "model_not_found",
    ):
        assert said in first.stdout
    page = (tmp_path / "demo/demo/report.html").read_text()
    assert all(version in page for version in versions)
    assert not (tmp_path / "demo/up.json").exists()

    second = run(["tenon", "demo", "run", "-w", "demo"], tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stderr.count("learn reused") == 3
    assert set(re.findall(r"live: (sha256:[0-9a-f]{64})", second.stderr)) == versions
    _travel(tmp_path)


def _travel(folder: Path) -> None:
    """The trained adapters, pushed to another registry over HTTP and pulled again, are the same bytes."""
    trained = open_catalog(Workspace(folder / "demo"))
    (digest,) = trained.bases()
    _, base, contract = trained.base(digest)
    with remote(folder / "registry", bases=[(base, contract)]) as elsewhere:
        for tenant in ("bank_a", "retail_b", "saas_c"):
            if tenant not in {each.id for each in elsewhere.world.catalog.tenants()}:
                elsewhere.world.catalog.create_tenant(Tenant(id=tenant, display_name=tenant), actor="test")
            _, secret = elsewhere.world.catalog.issue_key(tenant, role=Role.TRAINER, actor="test")
            (folder / f"{tenant}.key").write_text(secret)
            there = ["env", f"TENON_KEY_FILE={tenant}.key", f"TENON_WORKSPACE={elsewhere.url}", "tenon"]
            name = f"{tenant}/assistant"
            first = run(["tenon", "adapter", "pull", f"{name}:live", f"{tenant}-1", "-w", "demo"], folder)
            assert first.returncode == 0, first.stderr
            pushed = run(
                [*there, "adapter", "push", f"{tenant}-1", "--as", name, "--base", base.name], folder
            )
            assert pushed.returncode == 0, pushed.stderr
            ref = f"{name}@{pushed.stdout.strip()}"
            second = run([*there, "adapter", "pull", ref, f"{tenant}-2"], folder)
            assert second.returncode == 0, second.stderr
            manifest = trained.manifest(trained.resolve(Ref.parse(f"{name}:live")))
            for file in manifest.files:
                pulled = (folder / f"{tenant}-2" / file.path).read_bytes()
                assert pulled == (folder / f"{tenant}-1" / file.path).read_bytes()
                assert Digest.of(pulled) == file.digest


@pytest.mark.parametrize(
    ("name", "said"), [("first-adapter", "Receipt verified"), ("from-a-spreadsheet", "owner_approval")]
)
def test_a_tutorial_runs_as_it_is_written(tmp_path: Path, name: str, said: str) -> None:
    text = (ROOT / f"docs/tutorial/{name}.md").read_text()
    script = "\n".join(re.findall(r"```console\n(.*?)```", text, re.S))
    assert script.count("tenon ") > 10
    try:
        done = run(["bash", "-euo", "pipefail", "-c", script], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout
    finally:
        run(["tenon", "down", "-w", "work"], tmp_path)
