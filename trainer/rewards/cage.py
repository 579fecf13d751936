"""Runs in a process of its own (``python -I cage.py``) and imports nothing of Tenon but its neighbour `peer`.

Reads one JSON object from standard input: ``code``, ``tests``, ``word``, ``seconds``, ``memory``, ``strict``.
Writes ``word`` to standard output when all tests have passed, or ``open: …`` when ``strict`` and the code
could not be locked in.

The answer and its tests run in two processes. The answer's is forked before anything is read, so it never
held the word or the tests, and has no file but a pipe over which it says what its functions return (`peer`
tells what that leaves to it). Both are locked in: a network namespace whose only interface is down; a root
with the system's libraries, read-only, and a scratch folder of 16 MB, so that there is no file of the host
to write and no unix socket to call; no capability to undo it. What stays are faults of the kernel, and that
libraries can be read. Without ``strict``, what the system refuses is left out: files and network may be open,
and an answer that runs as the same user may reach the tests' process.
"""

import ctypes
import importlib.util
import json
import os
import resource
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_MS_PRIVATE_ALL, _MS_BIND_ALL = 0x44000, 0x5000  # each with MS_REC
_DETACH, _MOUNT_SETATTR, _AT_RECURSIVE = 2, 442, 0x8000
_READ_ONLY, _NOSUID = 1, 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_DEATH_SIGNAL, _DUMPABLE, _BOUNDING_DROP, _SECURE_BITS, _NO_NEW_PRIVILEGES, _AMBIENT = 1, 4, 24, 28, 38, 47
_AMBIENT_CLEAR_ALL = 4
_NO_ROOT_LOCKED = 0xEF  # uid 0 gets no capability back in any way of capabilities(7), for good
_CAPABILITIES_3 = 0x20080522
_CAPABILITIES = range(64)
_SCRATCH, _SCRATCH_SIZE = "/tmp", b"size=16m"  # noqa: S108 - of the new root, empty and its own
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "namespace")]


def main() -> None:
    sys.set_int_max_str_digits(0)  # numbers cross as text; the limit of time is enough
    peer = _load_peer()
    trouble = lock_in(Path.cwd())
    inside = os.fork()
    if inside:
        _, status = os.waitpid(inside, 0)
        os._exit(0 if status == 0 else 1)
    _LIBC.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    trouble = give_up() or trouble
    from_answer, to_tests = os.pipe()
    from_tests, to_answer = os.pipe()
    _LIBC.prctl(_DUMPABLE, 0, 0, 0, 0)  # neither process may look into the other
    if not os.fork():
        os.close(from_answer)
        os.close(to_answer)
        _LIBC.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        try:
            answer(peer.Peer(from_tests, to_tests, guarded=False))
        finally:
            os._exit(1)
    os.close(from_tests)
    os.close(to_tests)
    asked = json.load(sys.stdin)
    if trouble and asked["strict"]:
        os.write(1, f"open: {trouble}".encode())
        os._exit(1)
    passed = passes(asked, peer.Peer(from_answer, to_answer, guarded=True))
    os._exit(0 if passed else 1)  # the first of its namespace: what the answer started ends here


def answer(tests: Any) -> None:
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    asked = tests.receive()
    limit(seconds=asked["seconds"], memory=asked["memory"])
    space: dict[str, Any] = {"__name__": "answer"}
    exec(compile(asked["code"], "answer", "exec"), space)  # noqa: S102 - that is what this process is for
    space.pop("__builtins__", None)
    modules = {name for name, value in space.items() if isinstance(value, type(os))}
    tests.send({name: tests.pack(value) for name, value in space.items() if name not in modules})
    tests.serve()


def passes(asked: dict[str, Any], peer: Any) -> bool:
    """Only tests that ran to their end count: leaving early with a good exit status is no pass."""
    out = os.dup(1)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)  # what the tests print is not read as our word
    limit(seconds=asked["seconds"], memory=asked["memory"])
    try:
        peer.send({name: asked[name] for name in ("code", "seconds", "memory")})
        said = peer.receive().items()
        names = {name: peer.unpack(packed) for name, packed in said if not name.startswith("__")}
        # An answer that calls something `len` or `all` changes no word of the tests; `answer.len` is its own.
        space = {name: value for name, value in names.items() if name not in vars(_builtins())}
        space = {"answer": type("answer", (), names), **space, "__name__": "tests"}
        exec(compile(asked["tests"], "tests", "exec"), space)  # noqa: S102
    except BaseException:
        traceback.print_exc(limit=2)
        return False
    os.write(out, asked["word"].encode())
    return True


def lock_in(folder: Path) -> str:
    """What could not be taken away from the code; empty when everything was."""
    user, group = os.getuid(), os.getgid()
    if _LIBC.unshare(_NEWUSER | _NEWNET | _NEWNS | _NEWPID | _NEWIPC):
        return f"namespaces are not allowed ({_reason()})"
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    except OSError as error:
        return f"the user cannot be mapped ({error.strerror})"
    with suppress(OSError):  # where /proc/sys is read-only, a namespace within has its mounts locked anyway
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    if _LIBC.mount(b"none", b"/", None, _MS_PRIVATE_ALL, None):
        return f"mounts cannot be made private ({_reason()})"
    try:
        return _enter(folder)
    except OSError as error:
        return f"there can be no root of its own ({error})"


def _enter(root: Path) -> str:  # noqa: PLR0911 - one per refusal
    if _LIBC.mount(b"tmpfs", bytes(root), b"tmpfs", _NOSUID, b"size=1m"):
        return f"there can be no root of its own ({_reason()})"
    for shown in _shown():
        inside = root / shown.relative_to("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        if shown.is_symlink():
            inside.symlink_to(shown.readlink())
            continue
        inside.mkdir(exist_ok=True) if shown.is_dir() else inside.touch()
        if _LIBC.mount(bytes(shown), bytes(inside), None, _MS_BIND_ALL, None):
            return f"{shown} cannot be shown ({_reason()})"
    scratch, old = root / _SCRATCH.strip("/"), root / "old"
    scratch.mkdir()
    old.mkdir()
    number = _PIVOT_ROOT.get(os.uname().machine)
    if number is None or _LIBC.syscall(number, bytes(root), bytes(old)):
        return f"the root cannot be changed ({_reason()})"
    os.chdir("/")
    if _LIBC.umount2(b"/old", _DETACH):
        return f"the host's files cannot be left ({_reason()})"
    Path("/old").rmdir()
    attributes = _MountAttributes(_READ_ONLY | _NOSUID, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    if _LIBC.syscall(_MOUNT_SETATTR, -100, b"/", _AT_RECURSIVE, ctypes.byref(attributes), size):
        return f"the file system cannot be made read-only ({_reason()})"
    if _LIBC.mount(b"tmpfs", _SCRATCH.encode(), b"tmpfs", _NOSUID, _SCRATCH_SIZE):
        return f"there can be no scratch folder ({_reason()})"
    os.chdir(_SCRATCH)
    return ""


def _shown() -> list[Path]:
    """The interpreter's own libraries and the system's, outermost first; none twice."""
    shown: list[Path] = []
    wanted = (*_LIBRARIES, *_DEVICES, f"{sys.base_prefix}/lib")
    for path in map(Path, sorted(wanted, key=len)):
        if path.exists() and not any(path.is_relative_to(other) for other in shown):
            shown.append(path)
    return shown


def give_up() -> str:
    """No capability, and no way to one: a mount that is read-only stays so."""
    _LIBC.prctl(_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    _LIBC.prctl(_SECURE_BITS, _NO_ROOT_LOCKED, 0, 0, 0)
    for capability in _CAPABILITIES:  # those that the kernel does not know are refused
        _LIBC.prctl(_BOUNDING_DROP, capability, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    if _LIBC.capset(header, (ctypes.c_uint32 * 6)()):
        return f"capabilities cannot be given up ({_reason()})"
    if _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return f"new privileges cannot be refused ({_reason()})"
    return ""


def limit(*, seconds: int, memory: int) -> None:
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_NPROC, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _load_peer() -> Any:
    """By its path: this file is run, not imported, and its package has more than a cage needs."""
    spec = importlib.util.spec_from_file_location("peer", Path(__file__).with_name("peer.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _builtins() -> Any:
    return sys.modules["builtins"]


def _reason() -> str:
    return os.strerror(ctypes.get_errno())


_LIBC = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    main()
