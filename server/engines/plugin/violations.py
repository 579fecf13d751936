"""What the guard says when something must not go on: a file that survives the engine, and an exception."""

import os
import secrets
from pathlib import Path
from typing import Final, Literal

from registry.canonical import Document

Kind = Literal[
    "metadata",  # the kernel's indices were made for another batch or another layout of slots (#47724)
    "identity",  # one number, one name, one digest: no longer
    "slot",  # the adapter is in no slot, or in several
    "weights",  # what is registered under a number was not read from verified bytes
    "row",  # a request's row carries another adapter than its request
    "base",  # the bare base beside an adapter where that answers wrongly (D1)
    "inplace",  # weights asked to change under a running request (D6)
    "bytes",  # files that are not the version's
    "effect",  # the null adapter has an effect
    "tensor",  # a slot's tensor is not what was put there
    "unwatched",  # a step went by without its checks
]
SUFFIX: Final = ".violation.json"


class Violation(Document):
    """No prompt, no answer and no request id: names of adapters and numbers only."""

    kind: Kind
    what: str
    at: str
    """UTC, RFC 3339."""
    step: int
    names: tuple[str, ...] = ()
    """As vLLM knows them, and so by digest."""
    slot: int | None = None


class GuardViolation(RuntimeError):
    """Raised before the step's tokens exist. vLLM's engine core ends on it, its requests with an error."""


class GuardRefusal(ValueError):
    """A load that is turned down outside a step: nothing was served by it, so the engine goes on."""


def write(folder: Path, violation: Violation) -> Path:
    """On disk for good before this returns."""
    name = f"{os.getpid()}-{secrets.token_hex(6)}"
    draft, final = folder / f".{name}", folder / f"{name}{SUFFIX}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(violation.canonical())
        stream.flush()
        os.fsync(stream.fileno())
    draft.rename(final)
    listing = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(listing)
    finally:
        os.close(listing)
    return final
