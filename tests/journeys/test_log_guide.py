"""docs/concepts/log.md says what is true: its commands run in order, and say what it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_page_runs_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "tenon").symlink_to(Path(sys.executable).parent / "tenon")
    (tmp_path / "bin" / "verify-log-export").symlink_to(ROOT / "scripts" / "verify-log-export")
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "docs/concepts/log.md").read_text(), re.S)
    steps = [step for block in blocks for step in re.split(r"^\$ ", block, flags=re.M) if step]
    assert len(steps) > 15
    for step in steps:
        command, _, said = step.partition("\n")
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            environment[name] = value
            continue
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        shown = done.stdout + done.stderr
        assert (done.returncode == 0) == ("error:" not in said), f"{command}\n{shown}"
        for line in said.splitlines():
            assert line in shown, f"{command}\n{shown}"
