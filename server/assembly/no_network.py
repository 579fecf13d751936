"""No sockets for this process and its children, where the kernel does not give it a network of its own.

Most containers forbid new namespaces; a seccomp filter needs no privilege (seccomp(2)), only that privileges
cannot be gained any more (PR_SET_NO_NEW_PRIVS).
"""

import ctypes
import errno
import platform
import struct
from typing import Final

_PR_SET_SECCOMP, _FILTER = 22, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K, BPF_RET|BPF_K (linux/bpf_common.h)."""
_NUMBER, _ARCHITECTURE = 0, 4
"""Where they are in ``struct seccomp_data``."""
_OTHER_ABI = 0x40000000
"""x86-64's x32 calls have numbers from here on; so a filter by number alone would miss them."""
_IO_URING_SETUP: Final = 425
"""It opens sockets, too, and no filter sees it."""
_SOCKET: Final = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Machine -> (AUDIT_ARCH, number of socket(2))."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def forbid() -> bool:
    """Whether from now on nobody here can open a socket. After PR_SET_NO_NEW_PRIVS, before any thread."""
    known = _SOCKET.get(platform.machine())
    if known is None:
        return False
    architecture, socket = known
    steps = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, 5, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 3, 0, _OTHER_ABI),
        (_EQUAL, 2, 0, socket),
        (_EQUAL, 1, 0, _IO_URING_SETUP),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    )
    packed = b"".join(struct.pack("=HBBI", *step) for step in steps)
    program = _Program(len(steps), packed)
    libc = ctypes.CDLL(None, use_errno=True)
    done: int = libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0)
    return done == 0
