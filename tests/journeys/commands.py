"""The command line, run the way a shell runs it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def tenon(*arguments: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Done:
    """``environment``: what is set besides the little that every command gets."""
    done = subprocess.run(
        [sys.executable, "-m", "server.cli.main", *arguments],
        cwd=cwd,
        env=surroundings() | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def surroundings() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"PYTHONPATH": str(ROOT)}
