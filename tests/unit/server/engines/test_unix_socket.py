"""An engine that only who can open its socket's file can reach (D8): agent, feed and router over it."""

import json
import os
import signal
from pathlib import Path

from registry.feed import State
from registry.names import engine_name
from router.limits import Timeouts
from router.places import everywhere, usable
from router.upstream.pool import EnginePool
from server.engines.command import command
from server.testing.fake_model import signature, signed_by
from tests.unit.server.engines.bench import QUICK, Bench, cmdline


async def test_a_request_finds_its_way_through_the_socket_that_the_agent_announced(tmp_path: Path) -> None:
    socket = tmp_path / "s"
    bench = Bench(tmp_path, uds=socket, cadence=QUICK)
    argv, _ = command(bench.spec, {})
    assert argv[argv.index("--uds") + 1] == str(socket)
    assert not {"--host", "--port"} & set(argv)
    version = bench.adapter("bank_a", seed=1)
    pool = EnginePool(Timeouts())
    await pool.start()
    body = {"model": engine_name(version), "messages": [{"role": "user", "content": "hi"}]}

    async def ask() -> set[str]:
        (place,) = everywhere(State.of(bench.control.snapshot()))[version].places
        assert place.url.startswith("http+unix://")
        answer = await pool.ask(f"{place.url}/v1/chat/completions", json.dumps(body).encode())
        assert answer.status == 200
        said = b""
        while piece := await answer.read():
            said += piece
        await answer.close()
        return signed_by(json.loads(said)["choices"][0]["message"]["content"])

    async with bench.running():
        first = (await bench.until(lambda state: version in state.ready)).boot
        assert usable(bench.control.announced[-1])
        assert await ask() == {signature(bench.weights("bank_a"))}
        # A vLLM that was killed leaves its socket behind, and the next one must not stumble over it.
        for pid in _behind(socket):
            os.kill(pid, signal.SIGKILL)
        await bench.until(lambda state: version in state.ready and state.boot != first)
        assert await ask() == {signature(bench.weights("bank_a"))}
    await pool.stop()


def _behind(socket: Path) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit()
        and f"--uds {socket} " in cmdline(int(entry.name))
        and "guardian" not in cmdline(int(entry.name))
    ]
