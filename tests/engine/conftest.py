"""One real vLLM on a CPU for the whole session: it costs ten seconds and 2 GB, so it is started once.

Tests share it. Whoever loads something gives it a name of its own (a version's digest does that) and leaves
everything else alone.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.bases import describe
from registry.contract import Contract
from registry.digests import Digest
from registry.fingerprint import Fingerprint
from registry.models import Base
from server.demo.build_base import SHIPPED_BASE
from server.engines.client import VllmClient
from server.engines.command import command
from server.engines.process import EngineProcess
from server.engines.spec import EngineSpec


@dataclass(frozen=True, slots=True)
class RealEngine:
    spec: EngineSpec
    process: EngineProcess
    base: Base
    contract: Contract

    def client(self) -> VllmClient:
        """A new one for each test: connections belong to a test's event loop."""
        return VllmClient(self.spec.url)


@dataclass(frozen=True, slots=True)
class RealAdapter:
    folder: Path
    fingerprint: Fingerprint


def demo_spec(*, program: tuple[str, ...] | None = None) -> EngineSpec:
    return EngineSpec(
        engine="engine-0",
        model=str(SHIPPED_BASE.resolve()),
        base_name="demo",
        dtype="float32",
        device="cpu",
        port=_free_port(),
        max_loras=4,
        max_lora_rank=8,
        max_cpu_loras=16,
        tool_call_parser="hermes",
        program=program,
    )


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    from trainer.learning.contract import make_contract

    spec = demo_spec()
    folder = SHIPPED_BASE.resolve()
    base = describe(folder, name=spec.base_name, revision="local")
    home = tmp_path_factory.mktemp("engine")
    argv, environment = command(spec, {"PATH": os.environ["PATH"], "HOME": str(home)})
    process = EngineProcess(argv=argv, environment=environment, log=home / "vllm.log")
    process.start()
    try:
        asyncio.run(_ready(spec, process))
        yield RealEngine(spec, process, base, make_contract(base.identity(), folder))
    finally:
        asyncio.run(process.stop())


@pytest.fixture(scope="session")
def adapters(engine: RealEngine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RealAdapter]:
    """``first`` and ``second``: random LoRAs with the fingerprints that transformers and PEFT measure."""
    from trainer.learning.fingerprint import make_fingerprint

    root = tmp_path_factory.mktemp("adapters")
    made = {}
    for seed, name in enumerate(("first", "second"), start=1):
        folder = write_lora(root / name, seed=seed)
        made[name] = RealAdapter(folder, make_fingerprint(engine.base.identity(), SHIPPED_BASE, folder, []))
    return made


def write_lora(folder: Path, *, seed: int, zero: bool = False, size: float = 0.02, rank: int = 8) -> Path:
    """A PEFT folder as ``save_pretrained`` writes it; ``zero`` leaves every B at zero: no effect at all.
    ``size``: of B; a tenth of the usual leaves what the base learned."""
    import torch
    from peft import LoraConfig, get_peft_model

    from trainer.learning.base import load_model, surroundings

    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    with surroundings(seed=seed):
        model: Any = get_peft_model(load_model(SHIPPED_BASE), config)
        if not zero:
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=size)
        model.save_pretrained(folder)
    return folder


async def _ready(spec: EngineSpec, process: EngineProcess) -> None:
    async with VllmClient(spec.url) as client:
        await process.wait_ready(client.answers, limit=400)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fresh(text: str) -> Digest:
    """A version nobody else uses."""
    return Digest.of(text.encode())
