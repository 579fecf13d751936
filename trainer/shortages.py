"""Memory or disk that runs out, as an error that says which setting to lower."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from registry.errors import TenonError
from trainer.errors import DiskFull, OutOfMemory

_MEMORY: Final = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
"""How CUDA, PyTorch's CPU allocator and the operating system say it: there is no common class."""

_SPACE: Final = ("no space left on device", "disk quota exceeded", "file too large")
"""How the operating system says it; safetensors and torch pass it on inside errors of their own classes."""

_CUT_SHORT: Final = ("unexpected pos", "pytorchstreamwriter failed")
"""torch.save to a path keeps no reason: its zip writer only sees that fewer bytes arrived than it wrote."""


@contextmanager
def named_shortages(method: str) -> Iterator[None]:
    """Raises OutOfMemory and DiskFull in place of what libraries raise."""
    try:
        yield
    except TenonError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _says(error, _MEMORY)):
            raise _memory(method) from error
        if any(_is_full(one) for one in _chain(error)):
            raise DiskFull(f"no space left while {method} was writing ({_reason(error)})") from error
        raise


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return _says(error, _SPACE) or (isinstance(error, RuntimeError) and _says(error, _CUT_SHORT))


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    said = str(error).lower()
    return any(some in said for some in words)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from: torch's writer hides the OSError of a file object so."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)


def _reason(error: BaseException) -> str:
    """A quota or a limit on a file's size is not mended by making room."""
    for words in _SPACE:
        if any(words in str(one).lower() for one in _chain(error)):
            return words
    return "a file was cut short"


def _memory(method: str) -> OutOfMemory:
    return OutOfMemory(
        f"{method} needs more memory than there is",
        hint=f"halve {method}.batch_size and double {method}.gradient_accumulation (the same steps), "
        f"lower {method}.max_length, or set lora.quantization: nf4; tenon train --plan estimates the need",
    )
