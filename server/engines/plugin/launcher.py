"""``python -m server.engines.plugin.launcher ARGUMENTS``: vLLM's API server on a CPU, imported once.

vLLM starts four interpreters one after another that import the same modules (bench/engines/start.py measures
both ways). This one imports them, forks the server that the engine core and the workers come from, and is
vLLM then. Where that cannot be done safely it is vLLM as it comes, only slower.
"""

import importlib
import logging
import os
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

from server.engines.plugin import nursery
from server.settings import guard_spec_file, whole_environment

T = TypeVar("T")

_MARK: Final = "TENON_LAUNCHED"
_ENTRY: Final = "vllm.entrypoints.launchers.api_server.entry"
MODULES: Final = (
    "vllm.v1.worker.cpu_worker",  # "must be imported firstly", it says itself: it replaces parts of torch
    _ENTRY,
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
)
"""Only code: no plugin is called and nothing is computed before the fork."""
_OPENMP: Final = ("libgomp", "libiomp", "libomp")
_log = logging.getLogger(__name__)


def main() -> None:
    """Ends as vLLM's own program does."""
    environment = whole_environment()
    if _MARK not in environment:
        again = [sys.executable, "-m", __spec__.name, *sys.argv[1:]]
        os.execve(sys.executable, again, prepared(environment))  # noqa: S606 (this process itself)
    for name in (*MODULES, *(() if guard_spec_file() is None else ("server.engines.plugin.guard",))):
        importlib.import_module(name)
    if find_spec("setproctitle") is not None:
        importlib.import_module("setproctitle").getproctitle()  # finds its place before the environment moves
    if (why := nursery.unable(environment)) is None:
        nursery.open_nursery()
        _inspect_here()
    else:
        _log.warning("vLLM's processes are started the slow way: %s", why)
    importlib.import_module(_ENTRY).main()


def prepared(environment: Mapping[str, str]) -> dict[str, str]:
    """What has to be there before an interpreter starts: the libraries that vLLM preloads into its workers
    (0.32, platforms/cpu.py), because a forked one can no longer be given any."""
    preload = [path for path in environment.get("LD_PRELOAD", "").split(":") if path]
    if not any(name in path for path in preload for name in _OPENMP):
        preload += _first("torch", "lib/libgomp*.so*", "../torch.libs/libgomp*.so*")
    if not any("libtcmalloc" in path for path in preload):
        preload = _first("vllm", "libs/libtcmalloc_minimal*.so*", "libs/libtcmalloc.so*") + preload
    return {
        # numpy's and scipy's threads would be running when the nursery is forked; vLLM multiplies with torch.
        "OPENBLAS_NUM_THREADS": "1",
        **environment,
        **({"LD_PRELOAD": ":".join(preload)} if preload else {}),
        _MARK: "1",
    }


def _first(package: str, *patterns: str) -> list[str]:
    found = find_spec(package)  # of a top-level package: does not import it
    for folder in (found and found.submodule_search_locations) or ():
        for pattern in patterns:
            if paths := sorted(Path(folder).glob(pattern)):
                return [str(paths[0])]
    return []


def _inspect_here() -> None:
    """vLLM asks a fourth interpreter what a model class can do, lest CUDA be touched here. There is none."""
    registry: Any = importlib.import_module("vllm.model_executor.models.registry")

    def call(asked: Callable[[], T]) -> T:
        return asked()

    if hasattr(registry, "_run_in_subprocess"):
        registry._run_in_subprocess = call


if __name__ == "__main__":
    main()
