"""A wall of Linux's Landlock around this process: files that it may read, one folder that it may write, and
no TCP. For whoever is behind it there is no way back, nor for what it starts.

https://docs.kernel.org/userspace-api/landlock.html has the numbers; no privilege is needed. What it does not
stop: UDP, and looking whether a path exists. A network namespace stops the one; the other tells nobody.
"""

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""The same on every architecture: these system calls are newer than the common table."""
_VERSION, _BENEATH = 1, 1

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE = 1 << 1, 1 << 4, 1 << 5, 1 << 7, 1 << 8
_TRUNCATE = 1 << 14
_HANDLED: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""ABI -> every right over files that it knows; starting a program is one of them."""
_TCP: Final = (1 << 0) | (1 << 1)
"""Bind and connect, from ABI 4 on."""
_SCOPES: Final = (1 << 0) | (1 << 1)
"""Abstract unix sockets of others, and signals to others, from ABI 6 on."""
_KNOWN: Final = 6

_OF_FILES: Final = (1 << 0) | (1 << 1) | _READ_FILE | _TRUNCATE | (1 << 15)
_READ: Final = _READ_FILE | _READ_DIR
_CHANGE: Final = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_FILE | _TRUNCATE


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scopes", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


_SIZES: Final = {1: 8, 4: 16, 6: 24}
"""ABI -> bytes of a ruleset that the kernel knows."""


def build(*, read: Iterable[Path], change: Iterable[Path]) -> int:
    """From now on only these files and what is beneath these folders; nothing can be executed anywhere.

    ``change``: also written. What does not exist is left out. The ABI of the kernel's Landlock, below 4 TCP
    stays open; 0 where it has none: then nothing has changed. Raises OSError when the wall cannot be built
    although there is a Landlock. ``PR_SET_NO_NEW_PRIVS`` must be set.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    abi = min(int(libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))), _KNOWN)
    if abi < 1:
        return 0
    handled = _of(_HANDLED, abi)
    rules = _Ruleset(handled, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    size = ctypes.c_size_t(_of(_SIZES, abi))
    wall = _called(libc.syscall(_CREATE, ctypes.byref(rules), size, ctypes.c_uint32(0)))
    try:
        for paths, rights in ((read, _READ), (change, _CHANGE)):
            for path in paths:
                _open(libc, wall, path, rights & handled)
        _called(libc.syscall(_RESTRICT, wall, ctypes.c_uint32(0)))
    finally:
        os.close(wall)
    return abi


def _open(libc: ctypes.CDLL, wall: int, path: Path, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            rights &= _OF_FILES
        rule = _Beneath(rights, parent)
        _called(libc.syscall(_ADD, wall, _BENEATH, ctypes.byref(rule), ctypes.c_uint32(0)))
    finally:
        os.close(parent)


def _of(by_abi: dict[int, int], abi: int) -> int:
    return by_abi[max(known for known in by_abi if known <= abi)]


def _called(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
