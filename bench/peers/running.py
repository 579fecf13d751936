"""Peers as processes, one worker each, in front of a stub engine of their own."""

import http.client
import json
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from bench.peers.environments import LITELLM, VLLM_ROUTER
from bench.router import running
from bench.router.load import RequestsFailed, Side
from server.settings import inherited_environment

_START_SECONDS = 120
"""LiteLLM imports for ten seconds where nothing else runs."""
_MODEL = "tenon-0123456789abcdef"


@contextmanager
def peers() -> Iterator[list[Side]]:
    """All of them, ready to be asked. Raises PeerMissing, RequestsFailed."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tenon-peers-")))
        engine = stack.enter_context(running.stub())
        sides = [
            stack.enter_context(_litellm(folder, engine)),
            stack.enter_context(_vllm_router(folder, engine)),
        ]
        for side in sides:
            _warm(side)
        yield sides


@contextmanager
def _litellm(folder: Path, engine: running.Process) -> Iterator[Side]:
    """With a master key and no database: its leanest way to tell callers apart."""
    key, port = f"sk-{secrets.token_hex(16)}", _free_port()
    target = {"model": f"openai/{_MODEL}", "api_base": f"{engine.url}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": "assistant", "litellm_params": target}],
        "general_settings": {"master_key": key},
        "litellm_settings": {"telemetry": False},
    }
    file = folder / "litellm.json"  # JSON is YAML
    file.write_text(json.dumps(config))
    command = [str(LITELLM.path), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    settings = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": "127.0.0.1"}
    with _started(folder, "litellm", [*command, "--num_workers", "1"], settings, port, "/health/liveliness"):
        bearer = {"Authorization": f"Bearer {key}"}
        yield running.side("litellm", f"http://127.0.0.1:{port}", bearer, [{"model": "assistant"}])


@contextmanager
def _vllm_router(folder: Path, engine: running.Process) -> Iterator[Side]:
    """As it comes: no keys, no records. Its metrics are on, as ours are."""
    port = _free_port()
    command = [
        str(VLLM_ROUTER.path), "--worker-urls", engine.url, "--policy", "round_robin", "--log-level", "error",
        "--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(_free_port()),
        "--prometheus-host", "127.0.0.1",
    ]  # fmt: skip
    with _started(folder, "vllm-router", command, {}, port, "/health"):
        yield running.side("vllm_router", f"http://127.0.0.1:{port}", {}, [{"model": _MODEL}])


def _warm(side: Side) -> None:
    """The first answers build what later ones use: LiteLLM's takes seconds. Raises RequestsFailed."""
    with httpx.Client(timeout=60, trust_env=False) as client:
        for request in [*side.wholes, *side.streams] * 10:
            answer = client.post(side.url, content=request.body, headers=request.headers)
            if answer.status_code != 200:
                raise RequestsFailed(f"{side.name} answered {answer.status_code}: {answer.text[:300]}")


@contextmanager
def _started(
    folder: Path, name: str, command: list[str], settings: dict[str, str], port: int, health: str
) -> Iterator[None]:
    log = folder / f"{name}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=inherited_environment() | settings, stdout=out, stderr=out, cwd=folder
        )
    try:
        _wait(process, name, port, health, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", name: str, port: int, health: str, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RequestsFailed(f"{name} ended at its start:\n{log.read_text()[-2000:]}")
        asking = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            asking.request("GET", health)
            if asking.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            asking.close()
        time.sleep(0.1)
    raise RequestsFailed(f"{name} did not become ready:\n{log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
