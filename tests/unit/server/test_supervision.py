"""What ends is started again after a pause, and what does not stay up is said; with real processes that only
sleep, and a clock of the test's own."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.assembly import processes, stack
from server.assembly.processes import SUPERVISOR, Process, Running
from server.assembly.stack import Launch, Launches
from server.assembly.supervision import DEATHS, LONGEST, WINDOW, Deaths, Supervisor
from server.errors import StartFailed
from server.workspace import Workspace, create

ROLES = ("control", "engine", "engine-1", "router")


class Scene:
    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.now = 0.0
        self.told: list[str] = []
        self.full = False
        launches = [Launch(role=role, url="http://127.0.0.1:9", settings={}) for role in ROLES]
        running = Running(processes=tuple(self.spawn(workspace, each, tied=True) for each in launches))
        self.supervisor = Supervisor(
            workspace,
            Launches(together=(tuple(launches),)),
            running,
            tied=True,
            tell=lambda role, what: self.told.append(f"{role}: {what}"),
            ticks=lambda: self.now,
        )

    def spawn(self, workspace: Workspace, launch: Launch, *, tied: bool) -> Process:
        if self.full:
            raise OSError(11, "Resource temporarily unavailable")
        sleeping = ["-I", "-S", "-c", "import time; time.sleep(600)"]
        return processes.started(workspace, launch.role, launch.url, sleeping, {})

    def running(self) -> Running:
        found = stack.running(self.workspace)
        assert found is not None
        return found

    def of(self, role: str) -> Process:
        return next(process for process in self.running().processes if process.role == role)

    def kill(self, role: str) -> None:
        process = self.of(role)
        os.kill(process.pid, signal.SIGKILL)
        while process.alive():
            time.sleep(0.001)

    def look(self, *, after: float = 0.0) -> None:
        self.now += after
        self.supervisor.look()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    workspace = create(tmp_path / "workspace")
    made = Scene(workspace)
    monkeypatch.setattr(stack, "spawn", made.spawn)
    yield made
    stack.stop(workspace)


def test_what_is_killed_is_started_again_after_a_pause(scene: Scene) -> None:
    before = scene.running()
    scene.look()
    assert scene.told == []
    scene.kill("router")
    scene.look()
    scene.look(after=0.4)
    assert scene.running() == before
    scene.look(after=0.1)
    assert scene.told == [
        f"router: ended, see {scene.workspace.logs / 'router.log'}; it is started again in 0.5 s",
        "router: started again",
    ]
    assert scene.of("router").alive()
    assert scene.of("router") != next(each for each in before.processes if each.role == "router")
    assert scene.of(SUPERVISOR).pid == os.getpid()
    assert [each for each in scene.running().supervised if each.role != "router"] == [
        each for each in before.supervised if each.role != "router"
    ]


def test_what_does_not_stay_up_ends_everything(scene: Scene) -> None:
    for _ in range(DEATHS - 1):
        scene.kill("control")
        scene.look()
        scene.look(after=LONGEST)
    scene.kill("control")
    with pytest.raises(StartFailed, match="control ended 6 times within 300 s"):
        scene.look()


def test_an_engine_beside_others_is_tried_as_long_as_they_serve(scene: Scene) -> None:
    for _ in range(DEATHS + 2):
        scene.kill("engine-1")
        scene.look()
        scene.look(after=LONGEST)
    assert scene.told[-2].endswith("started again in 30 s")
    scene.kill("engine")
    scene.kill("engine-1")
    with pytest.raises(StartFailed, match="engine-1 ended"):
        scene.look()


def test_a_machine_that_has_no_process_left_is_waited_for(scene: Scene) -> None:
    scene.kill("router")
    scene.look()
    scene.full = True
    scene.look(after=1)
    assert "cannot be started: Resource temporarily unavailable" in scene.told[-1]
    scene.full = False
    scene.look(after=LONGEST)
    assert scene.of("router").alive()


def test_deaths_long_ago_do_not_count() -> None:
    deaths = Deaths()
    assert [deaths.pause(at) for at in (0, 1, 2, 3)] == [0.5, 1, 2, 4]
    assert deaths.pause(WINDOW + 3) == 0.5
    assert not deaths.too_many


def test_nothing_of_the_plan_stays_in_a_file(tmp_path: Path) -> None:
    """What the control plane is started with may hold a password; it travels through a pipe."""
    workspace = create(tmp_path / "workspace")
    secret = "postgresql://tenon:hunter2@db/tenon"
    plan = Launches(together=((Launch(role="control", url="", settings={"database_url": secret}),),))
    so_far: list[Process] = []
    stack._supervise(workspace, plan, so_far)
    try:
        (supervisor,) = so_far
        deadline = time.monotonic() + 60
        while supervisor.alive() and time.monotonic() < deadline:  # there is nothing to watch, so it ends
            processes.reap(supervisor.pid)
            time.sleep(0.01)
            workspace.stack.unlink(missing_ok=True)
        assert not supervisor.alive()
        files = [path for path in workspace.root.rglob("*") if path.is_file()]
        assert not [path for path in files if b"hunter2" in path.read_bytes()]
    finally:
        processes.stop(so_far)
