"""Runs one command so that it can never outlive whoever asked for it. Run by path, standard library only.

vLLM is several processes. Killing its first one can leave the others holding gigabytes, and after some
faults it hangs with its port closed and ignores SIGTERM (D5). So this program sits between agent and vLLM:

* its standard input is a pipe from the agent: when that closes, however the agent died, it stops everything;
* SIGTERM means: ask the command to end, wait ``grace`` seconds, then kill the whole process group;
* when the command ends by itself, whatever it left behind is killed and its exit status is passed on;
* the folder of the sockets between vLLM's processes goes with them, also where the agent no longer can.

A pipe and not PR_SET_PDEATHSIG, because that signal comes when the *thread* that forked ends.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_POLL = 0.2
"""Seconds between looks at the command while nothing happens; its end also interrupts the wait."""


def main(arguments: list[str]) -> int:
    """``GRACE COMMAND...``; returns the command's exit status (128 + signal when killed)."""
    grace, command = float(arguments[0]), arguments[1:]
    if os.getpgrp() != os.getpid():
        print("guardian: must be started as leader of its own process group", file=sys.stderr)  # noqa: T201
        return 2
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: asked.append(received))
    signal.signal(signal.SIGCHLD, lambda _received, _frame: None)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 (this process has one thread)
    )
    _watch(child, woken, asked)
    if child.poll() is None:
        _end(child, grace)
    _kill_rest()
    status = child.wait()
    shutil.rmtree(os.environ["VLLM_RPC_BASE_PATH"], ignore_errors=True)
    return status if status >= 0 else 128 - status


def _watch(child: "subprocess.Popen[bytes]", woken: int, asked: list[int]) -> None:
    """Returns when the child has ended, when its end was asked for, or when nobody holds the pipe."""
    while child.poll() is None and not asked:
        readable, _, _ = select.select([0, woken], [], [], _POLL)
        if woken in readable:
            os.read(woken, 512)
        if 0 in readable and not os.read(0, 512):
            break


def _end(child: "subprocess.Popen[bytes]", grace: float) -> None:
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(grace)
    if child.poll() is None:
        child.kill()


def _kill_rest() -> None:
    """SIGKILL to everyone in the group except this process."""
    own = os.getpid()
    for _ in range(50):
        others = [pid for pid in _group() if pid != own]
        if not others:
            return
        for pid in others:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _group() -> list[int]:
    """Living members of this process group (Linux; elsewhere nothing is found and nothing is killed)."""
    members = []
    try:
        entries = [entry for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208
    except OSError:
        return []
    for entry in entries:
        try:
            with open(f"/proc/{entry}/stat") as stream:  # noqa: PTH123 (pathlib would double the start-up)
                fields = stream.read().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in ("Z", "X") and int(fields[2]) == os.getpgrp():
            members.append(int(entry))
    return members


def _die_with_parent() -> None:
    """So that the command also dies if this program is killed outright (Linux; harmless elsewhere)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
