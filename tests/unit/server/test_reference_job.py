"""The confined process, with a child that is what the test says."""

import errno
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from registry.bases import describe
from server.assembly import confinement, reference_job
from server.assembly.confinement import Limits, Walls
from server.assembly.reference_job import Job, Refusal
from server.assembly.referencing import _refusal as refusal
from server.assembly.referencing import measured
from server.demo.build_base import SHIPPED_BASE
from server.errors import ReferenceFailed, Unconfined
from tests.support.adapters import tiny_base, write_adapter
from tests.support.tiny_model import case, write_jsonl
from trainer.errors import ZeroEffect

LIMITS = Limits(seconds=60, cpu_seconds=60, memory=8 << 30)


def inside(folder: Path, code: str, limits: Limits = LIMITS) -> None:
    """Runs ``code`` as the child: ``-m code`` of the standard library takes it from its arguments."""
    # timeit runs a statement, and needs nothing of this package on its path.
    confinement.run("timeit", ("-n1", "-r1", code), folder=folder, limits=limits)


def test_the_child_has_neither_our_secrets_nor_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENON_SECRET_OF_THE_TEST", "x")
    inside(
        tmp_path,
        "import os, json, sys; open('seen','w').write(json.dumps("
        "[dict(os.environ), os.getsid(0) == os.getpid(), sys.stdin.read()]))",
    )
    environment, leads, read = json.loads((tmp_path / "seen").read_text())
    assert "TENON_SECRET_OF_THE_TEST" not in environment
    assert set(environment) <= {
        "PATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE",
        "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "OMP_WAIT_POLICY",
    }  # fmt: skip
    assert environment["HOME"] == str(tmp_path)
    assert leads
    assert read == ""


def test_a_child_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, time; c = subprocess.Popen(['sleep', '600']); "
        "open('pid','w').write(str(c.pid)); time.sleep(600)"
    )
    with pytest.raises(ReferenceFailed, match="not done within 2 s"):
        inside(tmp_path, code, Limits(2, 60, 8 << 30))
    grandchild = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 10
    while _lives(grandchild):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_child_that_fails_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(ReferenceFailed, match="ended with"):
        inside(tmp_path, "raise SystemExit(3)")
    with pytest.raises(ReferenceFailed, match="SIGKILL"):
        inside(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


CONFINED = """
import ctypes, json, os, pathlib, resource, signal, socket, subprocess, sys
from server.assembly.confinement import Limits, confine
here = pathlib.Path.cwd()
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
walls = confine(Limits(60, 60, 8 << 30), read=[here.parent / "given"], change=here)
def tried(call):
    try:
        return str(call())
    except OSError as error:
        return type(error).__name__
said = {"walls": [walls.files, walls.network]}
"""


def confined(folder: Path, *lines: str) -> Any:
    """What the child had in ``said`` at its end, in the folder ``job`` beside ``given``."""
    job, given = folder / "job", folder / "given"
    job.mkdir(exist_ok=True)
    given.mkdir(exist_ok=True)
    code = [*CONFINED.strip().splitlines(), *lines, "pathlib.Path('said.json').write_text(json.dumps(said))"]
    inside(job, f"exec({chr(10).join(code)!r}, {{}})")
    said = json.loads((job / "said.json").read_text())
    assert said["walls"] == [True, True], "these tests need a kernel with Landlock"
    return said


def test_limits_hold_after_confine(tmp_path: Path) -> None:
    said = confined(
        tmp_path,
        "said['limits'] = [resource.getrlimit(resource.RLIMIT_AS)[0], "
        "resource.getrlimit(resource.RLIMIT_CPU)[1], resource.getrlimit(resource.RLIMIT_CORE)[1], "
        "ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)]",
    )
    assert said["limits"] == [8 << 30, 60, 0, 1]


def test_a_confined_child_reads_what_it_was_given_and_no_other_file(tmp_path: Path) -> None:
    secret, key = tmp_path / "secret", tmp_path / "given-not" / "key"
    secret.write_text("another tenant's")
    key.parent.mkdir()
    key.write_text("another tenant's")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "weights").write_text("its own")
    (tmp_path / "given" / "link").symlink_to(secret)
    said = confined(
        tmp_path,
        f"paths = {[str(secret), str(key), '/etc/hostname', '/proc/1/environ', str(Path(__file__))]!r}",
        "said['outside'] = [tried(lambda: open(path).read()) for path in paths]",
        "said['listed'] = tried(lambda: os.listdir(here.parent))",
        "said['given'] = tried(lambda: (here.parent / 'given' / 'weights').read_text())",
        "said['linked'] = tried(lambda: (here.parent / 'given' / 'link').read_text())",
        "said['written'] = [tried(lambda: (at / 'new').write_text('x')) for at in (here.parent, "
        "here.parent / 'given', pathlib.Path('/tmp'), here)]",
        "said['moved'] = tried(lambda: os.rename(here / 'new', here.parent / 'moved'))",
    )
    assert said["outside"] == ["PermissionError"] * 5
    assert (said["listed"], said["given"], said["linked"]) == (
        "PermissionError",
        "its own",
        "PermissionError",
    )
    assert said["written"] == ["PermissionError"] * 3 + ["1"]
    assert said["moved"] in ("PermissionError", "OSError")  # EXDEV: a kernel that lets nothing be moved


def test_a_confined_child_reaches_nobody(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        at = listening.getsockname()
        said = confined(
            tmp_path,
            f"said['tcp'] = tried(lambda: socket.create_connection({at!r}, 5))",
            "said['bound'] = tried(lambda: socket.socket().bind(('127.0.0.1', 0)))",
            "said['run'] = tried(lambda: subprocess.run([sys.executable, '-c', '1'], check=True))",
            f"said['signal'] = tried(lambda: os.kill({os.getpid()}, 0))",
        )
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()
    refused = {"PermissionError", "OSError", "ConnectionRefusedError"}
    assert {said["tcp"], said["run"], said["signal"]} <= refused


def test_landlock_alone_stops_tcp(tmp_path: Path) -> None:
    """Where a container forbids namespaces of its own: the same address, without a namespace to hide it."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        code = (
            "import ctypes, socket, pathlib; from server.assembly import wall; "
            "ctypes.CDLL(None).prctl(38, 1, 0, 0, 0); "
            f"a = wall.build(read=[], change=[pathlib.Path({str(tmp_path)!r})]); r = []; "
            f"s = socket.socket(); e = s.connect_ex({listening.getsockname()!r}); "
            "pathlib.Path('seen').write_text(str([a >= 4, e]))"
        )
        inside(tmp_path, code)
    assert (tmp_path / "seen").read_text() == f"[True, {errno.EACCES}]"


def test_without_walls_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, _ = tiny_base()
    adapter = write_adapter(tmp_path / "adapter", base, seed=1)
    job = Job(
        base=base, base_folder="/nowhere", adapter=str(adapter), probes=None, siblings={}, max_rank=64,
        seconds=60, cpu_seconds=60, memory=16 << 30,
    )  # fmt: skip
    monkeypatch.setattr(reference_job, "confine", lambda *_, **__: Walls(files=False, network=True))
    (tmp_path / reference_job.JOB).write_bytes(job.canonical())
    reference_job.main(tmp_path)
    said = Refusal.parse((tmp_path / reference_job.REFUSED).read_bytes())
    assert isinstance(refusal(said), Unconfined)


def test_what_the_child_refused_is_raised_here(tmp_path: Path) -> None:
    """A whole run: the adapter does not survive inspection, before any library is loaded."""
    base, _ = tiny_base()
    adapter = write_adapter(tmp_path / "adapter", base, seed=1)
    weights = adapter / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-4:] = b"\x00\x00\xc0\x7f"  # NaN, little-endian float32
    weights.write_bytes(bytes(data))
    job = Job(
        base=base,
        base_folder=str(tmp_path),
        adapter=str(adapter),
        probes=None,
        siblings={},
        max_rank=64,
        seconds=60,
        cpu_seconds=60,
        memory=16 << 30,
    )
    with pytest.raises(Exception, match="NaN") as raised:
        measured(job, tmp_path)
    assert getattr(raised.value, "code", "") == "adapter_not_finite"


@pytest.mark.slow
def test_a_real_fingerprint_is_made_behind_the_walls(tmp_path: Path) -> None:
    """torch, transformers and PEFT find all that they need, with probes that come from outside the folder."""
    base = describe(SHIPPED_BASE, name="demo", revision="shipped")
    probes = write_jsonl(tmp_path / "elsewhere.jsonl", [case(number) for number in range(4)])
    work = tmp_path / "work"
    work.mkdir()
    job = Job(
        base=base,
        base_folder=str(SHIPPED_BASE),
        adapter=str(write_adapter(work / "adapter", base, seed=1)),
        probes=str(probes),
        siblings={},
        max_rank=64,
        seconds=100,
        cpu_seconds=200,
        memory=20 << 30,
    )
    made = measured(job, work)
    assert made.base == base.identity()
    assert {probe.kind for probe in made.probes} == {"random", "tenant"}
    assert made.distance_to_base > 0.01
    assert "Traceback" not in (work / "said").read_text()


def test_every_refusal_keeps_its_code() -> None:
    assert isinstance(refusal(Refusal(code="zero_effect", message="as the base")), ZeroEffect)
    assert refusal(Refusal(code="adapter_too_large", message="x")).code == "adapter_too_large"
    assert refusal(Refusal(code="made_up", message="x")).code == "reference_failed"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with Path(f"/proc/{pid}/stat").open() as stream:
        return stream.read().rpartition(")")[2].split()[0] != "Z"
