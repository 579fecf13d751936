"""How a spec becomes a command line: pure, so that a test can read every flag."""

import json
from collections.abc import Mapping
from typing import Final

from server.engines.spec import EngineSpec

STRUCTURED_OUTPUTS: Final = {"backend": "guidance", "disable_any_whitespace": True}
"""The default backend silently under-enforces lengths, and unlimited whitespace lets an answer never end."""
GUARD: Final = "tenon_guard"
"""Entry point of the group ``vllm.general_plugins``."""
MAX_LOGPROBS: Final = 20
"""What a probe reads; more would only widen what a stolen request could learn."""

INHERITED: Final = frozenset(
    {"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV"}
)
INHERITED_PREFIXES: Final = ("HF_", "CUDA_", "NVIDIA_", "NCCL_", "XDG_", "SSL_", "OMP_", "KMP_")
"""What vLLM may see of the agent's environment. TENON_* (paths of keys and tokens) is not among it, and no
VLLM_*: those are set below or not at all, so that a stray variable cannot switch a resolver plugin on."""


def command(spec: EngineSpec, inherited: Mapping[str, str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """(argv, environment) of the engine's process; ``inherited`` is filtered by the allow-list above."""
    return _arguments(spec), _environment(spec, inherited)


def _arguments(spec: EngineSpec) -> tuple[str, ...]:
    arguments = [*spec.started_by, "--model", spec.model]
    if spec.revision is not None:
        arguments += ["--revision", spec.revision]
    arguments += [
        *("--served-model-name", spec.served_name),
        *(("--host", spec.host, "--port", str(spec.port)) if spec.uds is None else ("--uds", str(spec.uds))),
        *("--dtype", spec.dtype),
        *(_adapters(spec) if spec.merged is None else ()),
        *("--max-logprobs", str(MAX_LOGPROBS)),
        *("--structured-outputs-config", json.dumps(STRUCTURED_OUTPUTS, separators=(",", ":"))),
        *("--fingerprint-mode", "none"),  # tells a tenant nothing true: the same for every adapter
        "--disable-uvicorn-access-log",
    ]
    if spec.max_model_len is not None:
        arguments += ["--max-model-len", str(spec.max_model_len)]
    if spec.tool_call_parser is not None:
        arguments += ["--enable-auto-tool-choice", "--tool-call-parser", spec.tool_call_parser]
    if spec.device == "cpu":
        # Without it the first request of an adapter traces the model: 27 s instead of 6.5 s, two busy cores.
        arguments += ["--enforce-eager"]
    else:
        arguments += ["--gpu-memory-utilization", str(spec.gpu_memory_utilization or 0.9)]
        arguments += ["--tensor-parallel-size", str(spec.tensor_parallel_size)]
    return (*arguments, *spec.extra_args)


def _adapters(spec: EngineSpec) -> tuple[str, ...]:
    return (
        "--enable-lora",
        *("--max-loras", str(spec.max_loras)),
        *("--max-lora-rank", str(spec.boot_sizes.rank)),
        *("--max-cpu-loras", str(spec.boot_sizes.names + 1)),  # and the null adapter
    )


def inherited_of(inherited: Mapping[str, str]) -> dict[str, str]:
    """The part of the agent's environment that its children may see."""
    return {
        name: value
        for name, value in inherited.items()
        if name in INHERITED or name.startswith(INHERITED_PREFIXES)
    }


def _environment(spec: EngineSpec, inherited: Mapping[str, str]) -> dict[str, str]:
    environment = inherited_of(inherited)
    environment |= {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        # An allow-list: at most our own, above all not the path resolvers (D14).
        "VLLM_PLUGINS": "" if spec.guard is None else GUARD,
        # Strict tools become structural tags, which the guidance backend refuses ("Invalid grammar
        # specification: 'triggers'", vLLM 0.32). Without them it holds named and required calls to the
        # tool's schema, and the router validates every call.
        "VLLM_ENFORCE_STRICT_TOOL_CALLING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",  # the end of the log is what explains a crash
        "NO_COLOR": "1",
    }
    if spec.guard is not None:
        environment["TENON_GUARD"] = str(spec.guard)
    if spec.folder is not None:
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if spec.device == "cpu":
        if spec.cpu_cores is not None:
            environment["VLLM_CPU_OMP_THREADS_BIND"] = spec.cpu_cores
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(spec.kv_cache_gib or 1)
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve the router beside them
    return environment
