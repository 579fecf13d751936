"""The confined process, with a child that is what the test says."""

import json
import os
import time
from pathlib import Path

import pytest

from server.assembly import confinement, no_network, reference_job
from server.assembly.confinement import Limits
from server.assembly.reference_job import Job, Refusal
from server.assembly.referencing import _refusal as refusal
from server.assembly.referencing import measured
from server.errors import ReferenceFailed
from tests.support.adapters import tiny_base, write_adapter
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


def test_limits_hold_after_confine(tmp_path: Path) -> None:
    inside(
        tmp_path,
        "import resource, json, ctypes; from server.assembly.confinement import Limits, confine; "
        "alone = confine(Limits(60, 60, 8 << 30)); "
        "links = [line.split(':')[0].strip() for line in open('/proc/self/net/dev').readlines()[2:]]; "
        "open('seen','w').write(json.dumps([alone, links, resource.getrlimit(resource.RLIMIT_AS)[0], "
        "resource.getrlimit(resource.RLIMIT_CPU)[1], resource.getrlimit(resource.RLIMIT_CORE)[1], "
        "ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)]))",
    )
    alone, links, memory, cpu, core, no_new_privileges = json.loads((tmp_path / "seen").read_text())
    assert (memory, cpu, core, no_new_privileges) == (8 << 30, 60, 0, 1)
    assert not alone or links == ["lo"]


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


def test_no_socket_is_opened_where_there_is_no_network_of_its_own(tmp_path: Path) -> None:
    inside(
        tmp_path,
        "import ctypes, os, json, socket, subprocess, sys; from server.assembly import no_network; "
        "ctypes.CDLL(None).prctl(38, 1, 0, 0, 0); "
        "forbidden = no_network.forbid(); "
        "tried = 'import socket\\ntry: socket.socket(); print(0)\\nexcept PermissionError: print(13)'; "
        "child = subprocess.run([sys.executable, '-c', tried], capture_output=True, text=True).stdout; "
        "code = ctypes.CDLL(None, use_errno=True).syscall(425, 1, 0); "
        "open('seen', 'w').write(json.dumps([forbidden, child.strip(), code, ctypes.get_errno()]))",
    )
    forbidden, child, ring, _ = json.loads((tmp_path / "seen").read_text())
    assert (forbidden, child, ring) == (True, "13", -1)


def test_what_cannot_be_cut_off_from_the_network_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _ = tiny_base()
    job = Job(
        base=base, base_folder="/nowhere", adapter="/nowhere", probes=None, siblings={}, max_rank=64,
        seconds=60, cpu_seconds=60, memory=16 << 30,
    )  # fmt: skip
    (tmp_path / reference_job.JOB).write_bytes(job.canonical())
    monkeypatch.setattr(reference_job, "confine", lambda limits: False)
    monkeypatch.setattr(no_network, "forbid", lambda: False)
    reference_job.main(tmp_path)
    said = Refusal.parse((tmp_path / reference_job.REFUSED).read_bytes())
    assert (said.code, "network" in said.message) == ("reference_failed", True)
    assert not (tmp_path / reference_job.FINGERPRINT).exists()
