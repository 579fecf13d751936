"""What one engine is: decided once, checked once, and frozen."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import quote

from registry.digests import Digest
from registry.errors import InvalidName
from registry.names import engine_name, parse_name
from server.engines.errors import EngineSpecInvalid
from server.engines.sizes import Sizes, slot_rank

Device: TypeAlias = Literal["cpu", "cuda"]
Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]

VLLM: Final = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
"""The ``vllm`` console script fails with the CPU wheel (it looks for a package named exactly ``vllm``)."""
LAUNCHER: Final = (sys.executable, "-m", "server.engines.plugin.launcher")
"""The same on a CPU, where its processes may be forked: up in less than half the time."""
SERVED_NAME: Final = "tenon-base"
"""What vLLM calls the bare base. Nobody is ever told: answers come from adapters only."""
NULL_NAME: Final = "tenon-null"
"""An adapter without any effect, for the agent's own questions to the base (D1)."""
_PARSER: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}", re.ASCII)
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_MIN_CPU_LORAS: Final = 32
_LONGEST_SOCKET: Final = 107
_EXTRA: Final = re.compile(r"--(?:block-size|max-num-batched-tokens|max-num-seqs)=[1-9][0-9]{0,8}", re.ASCII)
"""All that ``extra_args`` may say. A list of what they may not say would have to know each spelling that
vLLM's parser takes: prefixes, underscores, ``-tp``, ``--option.key``, ``--option+`` …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """Raises EngineSpecInvalid with one sentence a fault, all faults at once."""

    engine: str
    """Name under which the engine is announced."""
    model: str
    """Folder of the base model, or its hub name (then ``revision`` is required)."""
    revision: str | None = None
    base_name: str
    """Name under which the base is registered."""
    dtype: Dtype
    device: Device
    port: int
    host: str = "127.0.0.1"
    uds: Path | None = None
    """A unix socket instead of host and port: then only who can open that file reaches vLLM (D8)."""
    advertised_url: str | None = None
    """What routers should use; required when ``host`` is a wildcard address."""
    max_loras: int = 8
    """Device slots: how many versions are worked on at a time (more in flight would starve: D13)."""
    max_lora_rank: int = 64
    """Largest rank to serve; vLLM is given :func:`slot_rank` of it, or less (``sizes``)."""
    max_cpu_loras: int | None = None
    """How many versions one boot may ever load, and hold ready; vLLM's CPU cache has room for exactly these
    and the null adapter, so that nothing is ever evicted and silently read again from disk (D3). Default:
    four times ``max_loras``, at least 32."""
    lora_sizes: Literal["wanted", "bound"] = "wanted"
    """What each boot is made for: what is wanted of the engine when it starts, unless it stands alone, or the
    bounds."""
    pool_size: int = 1
    """How many engines like this one the deployment runs: they may all start at once."""
    sizes: Sizes | None = None
    """Of this boot; None: the bounds."""
    max_model_len: int | None = None
    kv_cache_gib: int | None = None
    """CPU only; default 1."""
    cpu_cores: str | None = None
    """CPU only, such as "0-3". Without it vLLM chooses, and two on one machine choose the same: on two cores
    both then computed on the first one, and stood still for seconds."""
    gpu_memory_utilization: float | None = None
    """CUDA only; default 0.9."""
    tensor_parallel_size: int = 1
    tool_call_parser: str | None = None
    """vLLM's name for how the base writes a call of a tool. Without one, ``tool_choice`` auto is refused."""
    merged: Digest | None = None
    """``model`` is the base with this version in its weights: no adapter is applied on top of it."""
    guard: Path | None = None
    """What the guard inside vLLM is told, as a file; None: vLLM runs without it."""
    allow_uncertified: bool = False
    """Whether a vLLM may run that the mix-up suite was not run against on this device."""
    extra_args: Sequence[str] = ()
    """``--block-size=N``, ``--max-num-batched-tokens=N`` and ``--max-num-seqs=N``, and nothing else."""
    program: tuple[str, ...] | None = None
    """None: vLLM, as it starts best on this device."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "extra_args", tuple(self.extra_args))
        if faults := [*self._names(), *self._network(), *self._capacity(), *self._device()]:
            raise EngineSpecInvalid("; ".join(faults), faults=tuple(faults))

    @property
    def folder(self) -> Path | None:
        """The base's folder; None for a hub name."""
        path = Path(self.model)
        return path if path.is_absolute() else None

    @property
    def url(self) -> str:
        """Where the agent itself reaches vLLM."""
        if self.uds is not None:
            return f"http+unix://{quote(str(self.uds), safe='')}"
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{host}:{self.port}"

    @property
    def where(self) -> str:
        """For people."""
        return f"port {self.port}" if self.uds is None else str(self.uds)

    @property
    def served_name(self) -> str:
        """What vLLM calls its own weights."""
        return SERVED_NAME if self.merged is None else engine_name(self.merged)

    @property
    def public_url(self) -> str:
        return self.advertised_url or self.url

    @property
    def names(self) -> int:
        """How many adapter names one boot may load, at least; as many versions may be wanted of it."""
        return self.max_cpu_loras or max(_MIN_CPU_LORAS, 4 * self.max_loras)

    @property
    def started_by(self) -> tuple[str, ...]:
        return self.program or (LAUNCHER if self.device == "cpu" else VLLM)

    @property
    def rank(self) -> int:
        """The bound: what the fleet may ask the engine to hold."""
        return slot_rank(self.max_lora_rank)

    @property
    def boot_sizes(self) -> Sizes:
        return self.sizes or Sizes(rank=self.rank, names=self.names)

    def _names(self) -> list[str]:
        faults = []
        try:
            parse_name(self.engine, "engine name")
        except InvalidName as error:
            faults.append(error.message)
        if not self.base_name:
            faults.append("base_name is empty: an engine serves a registered base")
        if self.tool_call_parser is not None and not _PARSER.fullmatch(self.tool_call_parser):
            faults.append(f"tool_call_parser {self.tool_call_parser!r} is no name of a parser")
        if self.program == ():
            faults.append("program is empty: there is nothing to start")
        if not Path(self.model).is_absolute():
            if self.model.startswith(".") or self.model.count("/") != 1:
                faults.append(f"model {self.model!r} is neither an absolute folder nor a hub name owner/name")
            elif self.revision is None:
                faults.append("a hub name needs a revision, or the weights could change between two starts")
        elif self.revision is not None:
            faults.append("a revision is given and model is a folder: a folder has no revisions")
        return faults + [
            f"extra argument {argument!r} is none that changes only how fast vLLM answers, as --option=number"
            for argument in self.extra_args
            if not _EXTRA.fullmatch(argument)
        ]

    def _network(self) -> list[str]:
        faults = []
        if self.uds is not None:
            # Linux: 108 bytes with the final zero, and a longer path fails only when vLLM binds it.
            if not self.uds.is_absolute() or len(os.fsencode(self.uds)) > _LONGEST_SOCKET:
                faults.append(f"uds {self.uds} is no absolute path of at most {_LONGEST_SOCKET} bytes")
            return faults
        if not 1 <= self.port <= 65535:
            faults.append(f"port {self.port} is not 1 to 65535")
        if self.host not in _LOOPBACK and self.advertised_url is None:
            faults.append(
                f"host {self.host} is not loopback: give advertised_url, and let only routers reach it"
            )
        return faults

    def _capacity(self) -> list[str]:
        faults = []
        if self.max_loras < 1:
            faults.append("max_loras is less than 1: an engine without slots serves nobody")
        if self.max_cpu_loras is not None and self.max_cpu_loras < self.max_loras:
            faults.append(
                f"max_cpu_loras {self.max_cpu_loras} is less than max_loras {self.max_loras}: adapters "
                "would be evicted and read again from disk"
            )
        if self.max_model_len is not None and self.max_model_len < 16:
            faults.append(f"max_model_len {self.max_model_len} is less than 16 tokens")
        if self.tensor_parallel_size < 1:
            faults.append("tensor_parallel_size is less than 1")
        try:
            slot_rank(self.max_lora_rank)
        except EngineSpecInvalid as error:
            faults.append(error.message)
        return faults

    def _device(self) -> list[str]:
        faults = []
        if self.device == "cpu":
            if self.gpu_memory_utilization is not None:
                faults.append("gpu_memory_utilization is given and the device is cpu: use kv_cache_gib")
            if self.tensor_parallel_size != 1:
                faults.append("tensor_parallel_size is more than 1 and the device is cpu")
            if self.kv_cache_gib is not None and self.kv_cache_gib < 1:
                faults.append("kv_cache_gib is less than 1")
        else:
            if self.cpu_cores is not None:
                faults.append("cpu_cores is given and the device is cuda")
            if self.kv_cache_gib is not None:
                faults.append("kv_cache_gib is given and the device is cuda: use gpu_memory_utilization")
            if self.gpu_memory_utilization is not None and not 0 < self.gpu_memory_utilization <= 1:
                faults.append(f"gpu_memory_utilization {self.gpu_memory_utilization} is not a share of 1")
        return faults
