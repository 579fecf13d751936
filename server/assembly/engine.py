"""The engine process: agent, its small HTTP face, and vLLM below it."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from registry.bases import describe
from registry.clock import SystemClock
from registry.models import Base
from registry.signing.keys import Signer
from server.api.client import ControlClient
from server.assembly import logs
from server.assembly.bases import locate
from server.assembly.secrets import read_secret
from server.engines.agent import MERGE, Agent
from server.engines.agent_app import create_agent_app
from server.engines.cache import AdapterCache
from server.engines.cadence import Cadence
from server.engines.spec import EngineSpec
from server.settings import EngineSettings, inherited_environment

_FAKE_MERGE = (sys.executable, "-m", "server.testing.fake_merge")
_FAKE = (sys.executable, "-m", "server.testing.fake_vllm")


def serve(settings: EngineSettings) -> None:
    """Blocks until SIGTERM or SIGINT; vLLM is gone when this returns."""
    logs.start(settings.log_level, settings.log_format)
    folder = locate(settings.base, settings.base_revision)
    asyncio.run(_serve(settings, folder))


def specification(settings: EngineSettings, folder: Path) -> EngineSpec:
    cuda = settings.device == "cuda"
    return EngineSpec(
        engine=settings.engine,
        model=str(folder),
        base_name=settings.base_name,
        dtype=settings.dtype,
        device=settings.device,
        host=settings.vllm_host,
        port=settings.vllm_port,
        uds=settings.vllm_socket,
        advertised_url=settings.engine_url,
        max_loras=settings.max_loras,
        max_lora_rank=settings.max_lora_rank,
        lora_sizes=settings.lora_sizes,
        pool_size=settings.pool_size,
        max_model_len=settings.max_model_len,
        kv_cache_gib=None if cuda else settings.kv_cache_gib,
        cpu_cores=None if cuda else settings.cpu_cores,
        gpu_memory_utilization=settings.gpu_memory_utilization if cuda else None,
        tensor_parallel_size=settings.tensor_parallel_size,
        tool_call_parser=settings.tool_call_parser,
        allow_uncertified=settings.allow_uncertified_engine,
        program=_FAKE if settings.fake_engine else None,
    )


async def _serve(settings: EngineSettings, folder: Path) -> None:
    revision = settings.base_revision or "local"

    def read_base() -> Base:
        return describe(folder, name=settings.base_name, revision=revision)

    async with ControlClient(settings.control_url, read_secret(settings.service_token_file)) as control:
        agent = Agent(
            spec=specification(settings, folder),
            describe=read_base,
            control=control,
            signer=Signer.load(settings.engine_key_file),
            cache=AdapterCache(settings.cache_dir, limit=int(settings.cache_gib * (1 << 30))),
            clock=SystemClock(),
            inherited=inherited_environment(),
            log=settings.cache_dir / "vllm.log",
            guard=None if settings.fake_engine else settings.cache_dir / ".guard",
            cadence=Cadence(heartbeat=settings.heartbeat, drain=settings.engine_drain),
            merge=_FAKE_MERGE if settings.fake_engine else MERGE,
        )
        web = _Web(
            uvicorn.Config(
                create_agent_app(agent),
                host=settings.host,
                port=settings.agent_port,
                log_level="warning",
                access_log=False,
                lifespan="off",
            )
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, agent.stop)
        serving = asyncio.create_task(web.serve())
        try:
            await agent.run()
        finally:
            web.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await serving


class _Web(uvicorn.Server):
    """Signals belong to the agent: it says when to end, vLLM first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
