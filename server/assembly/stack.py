"""Control plane, engines and a router on one machine, as the separate processes they are in a cluster."""

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from registry.canonical import Document
from server.assembly import processes
from server.assembly.processes import SUPERVISOR, Process, Running, answer_of, reap, save, started, tail
from server.assembly.unready import obstacles
from server.errors import AlreadyRunning, PortTaken, StartFailed
from server.settings import RegistrySettings, UncertifiedSettings, inherited_environment, load
from server.workspace import Workspace

Progress = Callable[[str, str], None]
"""Called with (role, what it is doing now)."""

_START_LIMITS = {"control": 60.0, "engine": 900.0, "router": 60.0}
"""Seconds until ready. A CPU engine takes half a minute, a large model from a cold disk takes many."""


class Launch(Document):
    """How a role's process is started, and started again. ``settings`` may hold the storage's secrets: this
    is never written to a disk."""

    role: str
    url: str
    settings: dict[str, str]


class Launches(Document):
    together: tuple[tuple[Launch, ...], ...]
    """In the order to start; those of one tuple at the same time."""


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
    lora_sizes: str = "wanted"
    tool_call_parser: str | None = None
    fake: bool = False
    allow_uncertified: bool = False
    gpu_memory_utilization: float | None = None
    """Share of GPU memory for each of several engines on one GPU; None: the agent's default, for one."""
    heartbeat: float | None = None


def start(
    workspace: Workspace, *, engine: EngineOptions, ports: Ports, tied: bool, progress: Progress
) -> Running:
    """Start control, engines and router in this order and wait until each is ready, or is an engine that
    only lacks versions for longer than a start takes. As many engines as ``ports`` has places for, all at
    once.

    ``tied``: the processes end with this one, however it ends, and it is this one's to start them again
    (:mod:`server.assembly.supervision`). Otherwise a process of its own does that from now on. On any failure
    everything is stopped again.
    Raises AlreadyRunning, PortTaken, StartFailed (with the end of the log that tells why).
    """
    if (before := running(workspace)) is not None:
        raise AlreadyRunning(f"this workspace is already served at {before.url('router')}")
    so_far: list[Process] = []
    plan = launches(workspace, engine, ports)
    reserved = _reserved(ports)
    try:
        for together in plan.together:
            for launch in together:
                so_far.append(spawn(workspace, launch, tied=tied))
                save(workspace, Running(processes=tuple(so_far)))
            for process in so_far[-len(together) :]:
                _await_ready(process, progress)
        if not tied:
            _supervise(workspace, plan, so_far)
    except BaseException:
        processes.stop(so_far)
        workspace.stack.unlink(missing_ok=True)
        raise
    finally:
        reserved.close()
    return Running(processes=tuple(so_far))


def running(workspace: Workspace) -> Running | None:
    """What runs on this workspace now; None when nothing of it is left."""
    try:
        state = Running.parse(workspace.stack.read_bytes())
    except FileNotFoundError:
        return None
    return state if any(process.alive() for process in state.processes) else None


def stop(workspace: Workspace) -> bool:
    """Stop what `start` started, the router first so that no request meets a missing engine; before that
    whoever would start it again, unless it is this process."""
    state = running(workspace)
    if state is None:
        workspace.stack.unlink(missing_ok=True)
        return False
    for process in state.processes:
        if process.kind == SUPERVISOR and process.pid != os.getpid():
            # `tenon up` in another terminal stops the others itself.
            processes.stop([process], patience=processes.PATIENCE * len(state.processes))
    if (left := running(workspace)) is not None:
        processes.stop(list(left.supervised))
    workspace.stack.unlink(missing_ok=True)
    return True


def launches(workspace: Workspace, engine: EngineOptions, ports: Ports) -> Launches:
    common: dict[str, object] = {"service_token_file": workspace.service_token}
    control_url = f"http://127.0.0.1:{ports.control}"
    # Where this command keeps the registry's rows and bytes, the control plane must look for them too.
    storage = load(RegistrySettings).model_dump(exclude_defaults=True)
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
        "lora_sizes": engine.lora_sizes,
        "pool_size": len(ports.engines()),
        "fake_engine": int(engine.fake),
        "allow_uncertified_engine": int(
            engine.allow_uncertified or load(UncertifiedSettings).allow_uncertified_engine
        ),
    }
    for name in ("base_revision", "tool_call_parser", "heartbeat", "gpu_memory_utilization"):
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
        engines.append(_launch(role, f"http://127.0.0.1:{agent_port}", common | agent | own))
    return Launches(
        together=(
            (_launch("control", control_url, common | control),),
            tuple(engines),
            (_launch("router", f"http://127.0.0.1:{ports.router}", common | router),),
        )
    )


def _launch(role: str, url: str, settings: dict[str, object]) -> Launch:
    return Launch(role=role, url=url, settings={key: str(value) for key, value in settings.items()})


def cores_of(number: int, engines: int, cores: Sequence[int]) -> str:
    """The part of ``cores`` for one of several engines; more engines than cores share them evenly."""
    mine = cores[number::engines] or [cores[number % len(cores)]]
    return ",".join(map(str, mine))


def spawn(workspace: Workspace, launch: Launch, *, tied: bool) -> Process:
    environment = inherited_environment(storage=launch.role == "control") | {
        f"TENON_{key.upper()}": value for key, value in launch.settings.items()
    }
    kind = launch.role.partition("-")[0]
    command = ["-m", "server.cli.main", "serve", kind, *(["--tied"] if tied else [])]
    return started(workspace, launch.role, launch.url, command, environment)


def _supervise(workspace: Workspace, plan: Launches, so_far: list[Process]) -> None:
    """Through a pipe: what is needed to start the control plane again may hold secrets."""
    reads, writes = os.pipe()
    with os.fdopen(writes, "wb") as plans:
        try:
            command = ["-m", "server.assembly.supervision", str(workspace.root)]
            environment = inherited_environment(storage=True)
            so_far.append(started(workspace, SUPERVISOR, "", command, environment, reads=reads))
        finally:
            os.close(reads)
        save(workspace, Running(processes=tuple(so_far)))
        plans.write(plan.canonical())


def _await_ready(process: Process, progress: Progress) -> None:
    deadline = time.monotonic() + _START_LIMITS[process.kind]
    shown = ""
    progress(process.role, "starting")
    while True:
        reap(process.pid)
        if not process.alive():
            raise StartFailed(f"{process.role} ended at start, see {process.log}:\n{tail(process.log)}")
        status, body = answer_of(process)
        if status == 200:
            progress(process.role, "ready")
            return
        if body and (now := _doing(status, body, log=process.log)) != shown:
            shown = now
            progress(process.role, now)
        if time.monotonic() > deadline:
            if _lacks_versions(body):  # no reason to stop everything: it goes on trying
                progress(process.role, f"up without some of its versions: {shown}")
                return
            raise StartFailed(
                f"{process.role} was not ready in time, see {process.log}:\n{tail(process.log)}"
            )
        time.sleep(0.1)


def _doing(status: int, body: bytes, *, log: str) -> str:
    """Of an engine also the first of the versions that it does not serve."""
    state = _said(body)
    doing = str(state.get("doing") or state.get("status") or "")
    if state.get("up") and state.get("not_ready"):
        return f"{doing}, {obstacles(status, body, log=log)[0].what}"
    return doing


def _lacks_versions(body: bytes) -> bool:
    """An engine that has looked at what it is to serve, and does not serve all of it."""
    state = _said(body)
    return state.get("up") is True and bool(state.get("not_ready"))


def _said(body: bytes) -> dict[str, Any]:
    try:
        state: Any = json.loads(body)
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}


def _reserved(ports: Ports) -> ExitStack:
    """While a stack starts, for the router takes its port half a minute after it was found free. Raises
    PortTaken."""
    with ExitStack() as held:
        for name, port in ports.named().items():
            try:
                held.enter_context(_reservation(port))
            except OSError:
                raise PortTaken(f"port {port}, meant for the {name}, is taken") from None
        return held.pop_all()


def _is_free(port: int) -> bool:
    try:
        _reservation(port).close()
    except OSError:
        return False
    return True


def _reservation(port: int) -> socket.socket:
    """Of a port that nobody has bound: a name that one process at a time can have, and that ends with it
    (unix(7), abstract addresses). Raises OSError for a port that is bound or reserved."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    found = socket.socket(socket.AF_UNIX)
    try:
        found.bind(f"\0tenon/port/{port}")
    except OSError:
        found.close()
        raise
    return found


def _any_free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
