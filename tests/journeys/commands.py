"""The command line, run the way a shell runs it."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from server.cli.main import main

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


def tenon_here(*arguments: str) -> Done:
    """The same in this process, a hundred times as fast: for what does not depend on being one of its own.

    The environment and the folder are the test's.
    """
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["tenon", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main()
                code: object = 0
            except SystemExit as stopped:
                code = stopped.code
    finally:
        sys.argv = argv
    return Done(code if isinstance(code, int) else 0 if code is None else 1, out.getvalue(), err.getvalue())
