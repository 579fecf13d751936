"""A fake vLLM on a real socket, and adapters for it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp.test_utils import TestServer

from registry.digests import Digest
from server.testing.fake_engine import FakeOptions, Faults
from server.testing.fake_model import weights_of
from server.testing.fake_vllm import FakeServer, create_fake
from tests.support.adapters import tiny_base, write_adapter

BASE, _ = tiny_base()


def adapter(folder: Path, *, seed: int) -> tuple[Path, Digest]:
    """(PEFT folder, what its weights are for the fake)."""
    write_adapter(folder, BASE, seed=seed)
    return folder, weights_of(folder)


@asynccontextmanager
async def serve(
    options: FakeOptions | None = None, faults: Faults | None = None, die: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[FakeServer, str]]:
    """(the fake, its URL) while it serves."""
    fake = create_fake(options, faults, die)
    server = TestServer(fake.app())
    await server.start_server(shutdown_timeout=0.1)
    try:
        yield fake, str(server.make_url("")).rstrip("/")
    finally:
        await server.close()
