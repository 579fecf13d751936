"""The server of many adapters without a model, and the suite's ground on it."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from aiohttp import web

from server.mixup import lora
from server.mixup.ground import Ground, Plan
from server.mixup.loading import Dialect, Loader
from server.mixup.wire import Wire
from server.testing.fake_lora_server import WIDTH, FakeLoraServer
from tests.support.adapters import write_safetensors

PLAN = Plan(
    seed=3,
    requests=150,
    slots=2,
    pool=5,
    prompts=4,
    long_tokens=40,
    rounds=3,
    starving=0.5,
    tenant_salts="each",
    head_start=0.02,
    destructive=True,
)


@dataclass
class Served:
    server: FakeLoraServer
    ground: Ground


@contextlib.asynccontextmanager
async def served(
    folder: Path,
    server: FakeLoraServer,
    plan: Plan = PLAN,
    *,
    loading: Dialect = "vllm",
    given: tuple[str, ...] = (),
    made: bool = True,
) -> AsyncIterator[Served]:
    (folder / "base").mkdir()
    shapes = {"q_proj": WIDTH, "v_proj": WIDTH, "down_proj": 2 * WIDTH}
    write_safetensors(
        folder / "base" / "model.safetensors",
        {
            f"model.layers.0.x.{name}.weight": np.zeros((WIDTH, into), np.float32)
            for name, into in shapes.items()
        },
    )
    runner = web.AppRunner(server.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    async def restart() -> None:
        server.revive()

    try:
        async with Wire(f"http://127.0.0.1:{port}", key=server.key, timeout=10) as wire:
            ground = Ground(
                wire=wire,
                loader=Loader(wire, loading),
                plan=plan,
                folder=folder,
                shapes=lora.Shapes.of(folder / "base") if made else None,
                base="base",
                given=given,
                restart=restart,
            )
            yield Served(server, ground)
    finally:
        await runner.cleanup()
