"""Which vLLM may be trusted with more than one tenant."""

import re

from server.engines.errors import EngineUnsafeVersion

OLDEST_SAFE = (0, 32)
"""The first release with the fix of vLLM #47724: before it, a load could move running requests to another
tenant's weights (40 of 120 requests in the reproduction)."""
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.\d+)*(.*)", re.ASCII)


def refuse_unsafe(version: str) -> None:
    """Raises EngineUnsafeVersion for what is older than OLDEST_SAFE, its pre-releases, and the unreadable."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise EngineUnsafeVersion(
            f"the engine's version {version[:40]!r} cannot be read, so it is not trusted"
        )
    release = (int(match[1]), int(match[2]))
    suffix = match[3].lstrip(".-_")
    early = release == OLDEST_SAFE and suffix.startswith(("a", "b", "rc", "dev"))
    if release < OLDEST_SAFE or early:
        raise EngineUnsafeVersion(f"vLLM {version[:40]} is older than {OLDEST_SAFE[0]}.{OLDEST_SAFE[1]}")
