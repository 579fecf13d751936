"""The import law, and that importing has no effect."""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("registry", "router", "trainer", "server")
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "vllm")


def _modules() -> list[str]:
    found = []
    for package in PACKAGES:
        for info in pkgutil.walk_packages([str(ROOT / package)], prefix=f"{package}."):
            if ".migrations.versions" not in info.name and not info.name.endswith(
                (".migrations.env", "guardian")
            ):
                found.append(info.name)
    return sorted(found)


def test_the_import_law_holds() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_only_settings_reads_the_environment() -> None:
    readers = [
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "os.environ" in path.read_text() or "os.getenv" in path.read_text()
    ]
    assert [str(path) for path in readers if "guardian" not in str(path)] == ["server/settings.py"]


def test_importing_everything_light_has_no_effect_and_pulls_no_heavy_library() -> None:
    """One clean process imports all but the modules whose job is torch; it starts no thread."""
    light = [
        name
        for name in _modules()
        if not name.startswith(("trainer.learning.", "server.engines.plugin"))
        and name != "trainer.evaluation.local"
    ]
    program = (
        "import importlib, sys, threading\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], threading.active_count())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] 1"
    assert done.stderr == ""


@pytest.mark.parametrize("word", ["manager", "handler", "helper", "utils", "common", "misc"])
def test_no_module_is_named_after_nothing(word: str) -> None:
    assert [name for name in _modules() if word in name.rsplit(".", 1)[-1].split("_")] == []
