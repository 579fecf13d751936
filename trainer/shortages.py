"""Memory or disk that runs out, as an error that says which setting to lower."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from trainer.errors import DiskFull, OutOfMemory

_WORDS: Final = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")
"""How CUDA, PyTorch's CPU allocator and the operating system say it: there is no common class."""


@contextmanager
def named_shortages(method: str) -> Iterator[None]:
    """Raises OutOfMemory and DiskFull in place of what libraries raise."""
    try:
        yield
    except MemoryError:
        raise _memory(method) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(f"no space left while {method} was writing") from error
        raise
    except RuntimeError as error:
        if any(words in str(error).lower() for words in _WORDS):
            raise _memory(method) from error
        raise


def _memory(method: str) -> OutOfMemory:
    return OutOfMemory(
        f"{method} needs more memory than there is",
        hint=f"halve {method}.batch_size and double {method}.gradient_accumulation (the same steps), "
        f"lower {method}.max_length, or set lora.quantization: nf4; tenon train --plan estimates the need",
    )
