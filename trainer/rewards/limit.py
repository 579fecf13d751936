"""A bound on the time that Python code may take, without giving up the process."""

import contextlib
import ctypes
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class TimeIsUp(BaseException):
    """Raised inside the code that took too long. Nothing that a verifier's ``except Exception`` eats."""


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise TimeoutError when the body takes longer; a loop in pure Python and a regular expression that runs
    away are interrupted too.

    In the main thread this is a signal, for which ``re`` looks up too. In another thread only Python code is
    interrupted, at its next instruction.
    """
    here = threading.current_thread() is threading.main_thread()
    try:
        with _alarm(seconds) if here else _thrown(seconds):
            yield
    except TimeIsUp:
        raise TimeoutError(f"took more than {seconds:g} seconds") from None


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeIsUp

    before = signal.signal(signal.SIGALRM, ring)
    # Again and again: the first may be lost in a destructor, whose exceptions Python drops.
    outer = signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _thrown(seconds: float) -> Iterator[None]:
    thread = ctypes.c_ulong(threading.get_ident())
    done = threading.Event()

    def throw(what: Any) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, what)

    def wait() -> None:
        if not done.wait(seconds):
            throw(ctypes.py_object(TimeIsUp))

    watch = threading.Thread(target=wait, daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
        throw(None)  # one that was thrown while the body ended must not surface later
