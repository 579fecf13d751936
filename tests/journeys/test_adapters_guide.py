"""The guide to adapters says what is true: its commands run as they are written."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from registry.bases import describe
from server.demo.build_base import SHIPPED_BASE
from tests.support.adapters import write_adapter

ROOT = Path(__file__).parents[2]
CASE = {"messages": [{"role": "user", "content": "Please transfer 640.00 EUR to Marvik Ltd."}]}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_guide_runs_as_it_is_written(tmp_path: Path) -> None:
    base = describe(SHIPPED_BASE, name="demo", revision="local")
    for seed in (1, 2):
        write_adapter(
            tmp_path / f"adapter-{seed}", base, seed=seed, alpha=128
        )  # strong enough to be told from the base
    cases = [
        json.dumps({"id": str(number), **CASE, "facts": {}, "expect": {"type": "object"}})
        for number in range(4)
    ]
    (tmp_path / "cases.jsonl").write_text("\n".join(cases) + "\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = (ROOT / "docs/guides/adapters.md").read_text()
    script = "\n".join(re.findall(r"```console\n(.*?)```", text, re.S))
    assert script.count("tenon ") > 30
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PORT": str(port),
        "TENON_CONFIG_DIR": str(tmp_path / "trainer"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"trap 'kill $(jobs -p)' EXIT\n{script}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=550,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "pulled/adapter_model.safetensors").is_file()
    for said in ("canary", "rollback", "is revoked"):
        assert said in done.stdout + done.stderr
