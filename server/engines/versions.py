"""Which vLLM may be trusted with more than one tenant."""

import re
from typing import Final

from server.engines.errors import EngineUncertified, EngineUnsafeVersion
from server.engines.spec import Device

OLDEST_SAFE: Final = (0, 32)
"""The first release with the fix of vLLM #47724: before it, a load could move running requests to another
tenant's weights (40 of 120 requests in the reproduction). Nothing allows an older one."""
CERTIFIED: Final = frozenset[tuple[str, Device]]({("0.32.0", "cpu")})
"""Releases that ``tenon mixup`` was run against on that device, without a mix-up and with every negative
control caught (docs/mixup.md). A GPU runs other kernels and another model runner, so it counts by itself."""
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


def certified(version: str, device: str) -> bool:
    """A local label (``+cpu``) says how a release was built, not which it is."""
    return (version.partition("+")[0], device) in CERTIFIED


def refuse_untrusted(version: str, device: Device, *, allow_uncertified: bool) -> None:
    """Raises EngineUnsafeVersion, whatever is allowed, and EngineUncertified."""
    refuse_unsafe(version)
    if not allow_uncertified and not certified(version, device):
        raise EngineUncertified(f"vLLM {version[:40]} on {device} has not been through the mix-up suite")
