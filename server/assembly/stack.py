"""Control plane, engines and a router on one machine, as the separate processes they are in a cluster."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from registry.canonical import Document
from server.errors import AlreadyRunning, PortTaken, StartFailed
from server.settings import StorageSettings, inherited_environment, load
from server.workspace import Workspace

Progress = Callable[[str, str], None]
"""Called with (role, what it is doing now)."""

_START_LIMITS = {"control": 60.0, "engine": 900.0, "router": 60.0}
"""Seconds until ready. A CPU engine takes half a minute, a large model from a cold disk takes many."""


class Process(Document):
    """One started process; ``born`` (clock ticks since boot) tells it from a later one with the same pid."""

    role: str
    pid: int
    born: int
    url: str
    log: str

    @property
    def kind(self) -> str:
        """``engine`` for ``engine-1``, too."""
        return self.role.partition("-")[0]

    def alive(self) -> bool:
        return _born(self.pid) == self.born


class Running(Document):
    """The content of ``up.json``: what `tenon up` started."""

    processes: tuple[Process, ...]

    def url(self, role: str) -> str:
        return next(process.url for process in self.processes if process.role == role)

    @property
    def engines(self) -> tuple[Process, ...]:
        return tuple(process for process in self.processes if process.kind == "engine")


@dataclass(frozen=True, slots=True)
class Ports:
    router: int = 8400
    control: int = 8401
    agent: int = 8410
    vllm: int = 8411
    more: tuple[tuple[int, int], ...] = ()
    """Of the engines after the first: (agent, vllm)."""

    @classmethod
    def free(cls, *, router: int | None = None, engines: int = 1) -> "Ports":
        """The defaults where nothing listens there, else whatever the system has free.

        vLLM binds its port half a minute late, when another stack may have taken a default meanwhile, so
        its port is always one of the system's choosing.
        ``router`` was asked for by name, so it is kept even if taken: `start` then says so.
        """
        ports = {name: port if _is_free(port) else _any_free() for name, port in cls().named().items()}
        ports |= {"vllm": _any_free()} | ({} if router is None else {"router": router})
        return cls(**ports, more=tuple((_any_free(), _any_free()) for _ in range(engines - 1)))

    def named(self) -> dict[str, int]:
        first = {"router": self.router, "control": self.control, "agent": self.agent, "vllm": self.vllm}
        for number, (agent, vllm) in enumerate(self.more, start=1):
            first |= {f"agent of engine-{number}": agent, f"vllm of engine-{number}": vllm}
        return first

    def engines(self) -> tuple[tuple[int, int], ...]:
        return ((self.agent, self.vllm), *self.more)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What differs between a laptop with the demo base and a GPU with a real one."""

    base: str
    base_name: str
    base_revision: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    max_loras: int = 4
    max_lora_rank: int = 16
    tool_call_parser: str | None = None
    fake: bool = False
    heartbeat: float | None = None


def start(
    workspace: Workspace, *, engine: EngineOptions, ports: Ports, tied: bool, progress: Progress
) -> Running:
    """Start control, engines and router in this order and wait until each is ready. As many engines as
    ``ports`` has places for, all at once.

    ``tied``: the processes end with this one, however it ends. On any failure everything is stopped again.
    Raises AlreadyRunning, PortTaken, StartFailed (with the end of the log that tells why).
    """
    if (before := running(workspace)) is not None:
        raise AlreadyRunning(f"this workspace is already served at {before.url('router')}")
    for name, port in ports.named().items():
        if not _is_free(port):
            raise PortTaken(f"port {port}, meant for the {name}, is taken")
    started: list[Process] = []
    try:
        for together in _roles(workspace, engine, ports):
            for role, url, settings in together:
                started.append(_spawn(workspace, role, url, settings, tied=tied))
                _save(workspace, Running(processes=tuple(started)))
            for process in started[-len(together) :]:
                _await_ready(process, progress)
    except BaseException:
        _stop(started)
        workspace.stack.unlink(missing_ok=True)
        raise
    return Running(processes=tuple(started))


def running(workspace: Workspace) -> Running | None:
    """What runs on this workspace now; None when nothing of it is left."""
    try:
        state = Running.parse(workspace.stack.read_bytes())
    except FileNotFoundError:
        return None
    return state if any(process.alive() for process in state.processes) else None


def stop(workspace: Workspace) -> bool:
    """Stop what `start` started, the router first so that no request meets a missing engine."""
    state = running(workspace)
    if state is not None:
        _stop(list(state.processes))
    workspace.stack.unlink(missing_ok=True)
    return state is not None


def _roles(
    workspace: Workspace, engine: EngineOptions, ports: Ports
) -> list[list[tuple[str, str, dict[str, object]]]]:
    """In the order to start; those of one list at the same time."""
    common: dict[str, object] = {"service_token_file": workspace.service_token}
    control_url = f"http://127.0.0.1:{ports.control}"
    # Where this command keeps the registry's rows and bytes, the control plane must look for them too.
    storage = load(StorageSettings).model_dump(exclude_defaults=True)
    control = {"workspace": workspace.root, "control_port": ports.control} | storage
    agent: dict[str, object] = {
        "control_url": control_url,
        "engine_key_file": workspace.key("engine"),
        "base": engine.base,
        "base_name": engine.base_name,
        "device": engine.device,
        "dtype": engine.dtype,
        "max_loras": engine.max_loras,
        "max_lora_rank": engine.max_lora_rank,
        "fake_engine": int(engine.fake),
    }
    for name in ("base_revision", "tool_call_parser", "heartbeat"):
        if value := getattr(engine, name):
            agent[name] = value
    router = {
        "control_url": control_url,
        "router_port": ports.router,
        "router_key_file": workspace.key("router"),
        "salt_file": workspace.salt,
        "records_dir": workspace.records,
    }
    if workspace.retention_key.is_file():  # workspaces of before have none
        router["retention_key_file"] = workspace.retention_key
    engines = []
    for number, (agent_port, vllm_port) in enumerate(ports.engines()):
        own: dict[str, object] = {
            "engine": f"engine-{number}",
            "agent_port": agent_port,
            "vllm_port": vllm_port,
            # vLLM reads its adapters from there for as long as it lives: nobody else may sweep it.
            "cache_dir": workspace.cache.with_name(f"{workspace.cache.name}-{number}")
            if number
            else workspace.cache,
        }
        if engine.device == "cpu" and ports.more:
            own["cpu_cores"] = cores_of(number, len(ports.engines()), sorted(os.sched_getaffinity(0)))
        role = f"engine-{number}" if number else "engine"
        engines.append((role, f"http://127.0.0.1:{agent_port}", common | agent | own))
    return [
        [("control", control_url, common | control)],
        engines,
        [("router", f"http://127.0.0.1:{ports.router}", common | router)],
    ]


def cores_of(number: int, engines: int, cores: Sequence[int]) -> str:
    """The part of ``cores`` for one of several engines; more engines than cores share them evenly."""
    mine = cores[number::engines] or [cores[number % len(cores)]]
    return ",".join(map(str, mine))


def _spawn(workspace: Workspace, role: str, url: str, settings: dict[str, object], *, tied: bool) -> Process:
    log = workspace.logs / f"{role}.log"
    environment = inherited_environment(storage=role == "control") | {
        f"TENON_{key.upper()}": str(value) for key, value in settings.items()
    }
    kind = role.partition("-")[0]
    command = [sys.executable, "-m", "server.cli.main", "serve", kind, *(["--tied"] if tied else [])]
    with log.open("ab") as sink:
        pid = os.posix_spawn(
            sys.executable,
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, sink.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, sink.fileno(), 2),
            ],
            setsid=True,  # a Ctrl-C at the terminal is ours to turn into an orderly stop
        )
    return Process(role=role, pid=pid, born=_born(pid) or 0, url=url, log=str(log))


def _await_ready(process: Process, progress: Progress) -> None:
    deadline = time.monotonic() + _START_LIMITS[process.kind]
    shown = ""
    progress(process.role, "starting")
    while True:
        _reap(process.pid)
        if not process.alive():
            raise StartFailed(f"{process.role} ended at start, see {process.log}:\n{_tail(process.log)}")
        status, body = _get(process.url + "/readyz")
        if status == 200:
            progress(process.role, "ready")
            return
        if body and (now := _doing(body)) != shown:
            shown = now
            progress(process.role, now)
        if time.monotonic() > deadline:
            raise StartFailed(
                f"{process.role} was not ready in time, see {process.log}:\n{_tail(process.log)}"
            )
        time.sleep(0.1)


def _get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (our own loopback URL)
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, HTTPException):
        return 0, b""


def _doing(body: bytes) -> str:
    try:
        state: Any = json.loads(body)
        return str(state.get("doing") or state.get("status") or "")
    except (ValueError, AttributeError):
        return ""


def _stop(processes: list[Process]) -> None:
    for process in reversed(processes):
        if not process.alive():
            continue
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while process.alive() and time.monotonic() < deadline:
            _reap(process.pid)
            time.sleep(0.05)
        if process.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            _reap(process.pid)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # started by another process: init reaps it
        os.waitpid(pid, os.WNOHANG)


def _born(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _save(workspace: Workspace, state: Running) -> None:
    draft = workspace.stack.with_suffix(".new")
    draft.write_bytes(state.canonical())
    draft.replace(workspace.stack)


def _tail(log: str, lines: int = 12) -> str:
    return "\n".join(Path(log).read_text(errors="replace").splitlines()[-lines:])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _any_free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
