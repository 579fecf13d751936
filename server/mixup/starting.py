"""Servers that the suite starts itself: vLLM as people start it, and with what is broken on purpose."""

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from server.engines.process import EngineProcess
from server.engines.spec import LAUNCHER, VLLM, Device
from server.mixup.wire import Wire

BASE_NAME: Final = "base"
KEY: Final = "mixup-key"
_START_LIMIT: Final = 400.0
"""Seconds: three interpreters import vLLM one after another, on a busy machine in minutes."""
_EVICTING: Final = 6
"""vLLM keeps as many adapters in memory as it has slots unless told otherwise; people set a few more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one vLLM is started, or Tenon's stack."""

    base: Path
    slots: int = 4
    """Of all engines together."""
    engines: int = 2
    """Of Tenon's stack: one may die."""
    heartbeat: float = 5.0
    """Of Tenon's stack: seconds between two looks at everything; 30 unless it is told otherwise."""
    cpu_loras: int = _EVICTING
    plugins: tuple[str, ...] | None = None
    """VLLM_PLUGINS; None: not set, and vLLM takes all that are installed, its own resolvers among them."""
    resolver_folder: Path | None = None
    device: Device = "cpu"
    fake: bool = False
    """Of Tenon's stack: with the engine that has no model, to try the suite itself."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """As `tenon up` chooses it."""
        return "float32" if self.device == "cpu" else "bfloat16"

    def arguments(self, port: int) -> tuple[str, ...]:
        arguments = [
            *(LAUNCHER if self.device == "cpu" else VLLM),  # the same vLLM, up in half the time
            *("--model", str(self.base)),
            *("--served-model-name", BASE_NAME),
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--dtype", self.dtype),
            "--enable-lora",
            *("--max-loras", str(self.slots)),
            *("--max-cpu-loras", str(self.cpu_loras)),
            *("--max-lora-rank", "16"),
            *("--api-key", KEY),
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
            "--enable-prompt-tokens-details",
            "--disable-uvicorn-access-log",
        ]
        if self.device == "cpu":
            arguments += ["--enforce-eager"]  # else each new adapter traces the model once more: 27 s
        else:
            arguments += ["--gpu-memory-utilization", "0.4"]
        return tuple(arguments)

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        kept = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "CUDA_HOME")
        found = {name: inherited[name] for name in kept if name in inherited} | {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
        }
        if self.device == "cpu":
            found |= {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        if self.plugins is not None:
            found["VLLM_PLUGINS"] = ",".join(self.plugins)
        if self.resolver_folder is not None:
            found["VLLM_LORA_RESOLVER_CACHE_DIR"] = str(self.resolver_folder)
        return found | dict(self.environment)


class Vllm:
    """One vLLM that can die and be started again, always at the same address."""

    def __init__(self, recipe: Recipe, *, log: Path, inherited: Mapping[str, str]) -> None:
        self._recipe = recipe
        self._log = log
        self._inherited = inherited
        self._port = free_port()
        self._process: EngineProcess | None = None
        self.starts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Raises EngineStartFailed with the end of the log."""
        process = EngineProcess(
            argv=self._recipe.arguments(self._port),
            environment=self._recipe.variables(self._inherited),
            log=self._log,
            grace=5,
        )
        process.start()
        self._process = process
        self.starts += 1
        async with Wire(self.url, key=KEY) as wire:
            await process.wait_ready(wire.alive, limit=_START_LIMIT)

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()
            self._process = None

    async def restart(self) -> None:
        await self.stop()
        await self.start()


@contextlib.asynccontextmanager
async def vllm(recipe: Recipe, *, log: Path, inherited: Mapping[str, str]) -> AsyncIterator[Vllm]:
    server = Vllm(recipe, log=log, inherited=inherited)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
