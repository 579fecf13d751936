"""The official ``openai`` client for Node: ``tests/clients/node``, run against a router on real sockets."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from tests.clients.conftest import Desk

SUITE = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def installed() -> Path:
    """The suite with its dependencies, outside the tree, once for each lock file."""
    lock = (SUITE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenon-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "node_modules").is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as fresh:
                for name in ("package.json", "package-lock.json"):
                    shutil.copy(SUITE / name, fresh)
                command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
                subprocess.run(command, cwd=fresh, check=True, capture_output=True)
                folder.mkdir(exist_ok=True)
                (Path(fresh) / "node_modules").rename(folder / "node_modules")
    for name in ("package.json", "openai.test.js"):
        shutil.copy(SUITE / name, folder)
    return folder


async def test_the_node_client(desk: Desk, installed: Path) -> None:
    """One process for all of it: Node takes half a second to start."""
    running = await asyncio.create_subprocess_exec(
        "node",
        "--test",
        cwd=installed,
        env={**os.environ, "TENON_URL": desk.url, "TENON_KEY": desk.secret, "SIGNED": desk.signed},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await running.communicate()
    assert running.returncode == 0, told.decode()
    assert "fail 0" in told.decode()
    assert "skipped 0" in told.decode()
