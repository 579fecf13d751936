"""The suites of ``tests/clients/node``, each a process of Node's own test runner."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

_SUITES = Path(__file__).parent / "node"


async def passes(suite: str, **environment: str) -> None:
    """One process for all of a suite: Node takes half a second to start."""
    folder = await asyncio.to_thread(_installed)
    running = await asyncio.create_subprocess_exec(
        "node",
        "--test",
        suite,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await running.communicate()
    assert running.returncode == 0, told.decode()
    assert "fail 0" in told.decode()
    assert "skipped 0" in told.decode()


def _installed() -> Path:
    """The suites with their dependencies, outside the tree, once for each lock file."""
    lock = (_SUITES / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenon-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    with FileLock(f"{folder}.lock"):
        if not (folder / "node_modules").is_dir():
            with tempfile.TemporaryDirectory(dir=cache) as fresh:
                for name in ("package.json", "package-lock.json"):
                    shutil.copy(_SUITES / name, fresh)
                command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
                subprocess.run(command, cwd=fresh, check=True, capture_output=True)
                folder.mkdir(exist_ok=True)
                (Path(fresh) / "node_modules").rename(folder / "node_modules")
    for path in (_SUITES / "package.json", *_SUITES.glob("*.test.js")):
        shutil.copy(path, folder)
    return folder
