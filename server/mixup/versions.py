"""Versions of adapters whose answers are known, and how a stack is told which of them is to answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from registry.digests import Digest
from server.mixup.wire import Reply

if TYPE_CHECKING:
    from server.mixup.ground import Ground


@dataclass(frozen=True, slots=True)
class Known:
    """A version, and the weights that it was made of."""

    version: Digest
    tenant: str
    """The name that it is asked by: a tenant, or one model of a tenant."""
    weights: str
    folder: Path = Path()
    """Of its files, where the suite has made them."""


class Moves(Protocol):
    """What an operator of a running stack may do. Each raises TenonError, and nothing has moved then."""

    known: dict[str, Known]
    """By the version's digest, as the router says it."""

    def promote(self, known: Known, *, percent: float = 100) -> None:
        """Once all engines that are to hold it do."""

    def rollback(self, tenant: str) -> None: ...

    def live(self, tenant: str) -> Known: ...

    def come_and_go(self, ground: "Ground", tenant: str, number: int) -> None:
        """A version that is never promoted: that it is pushed and revoked must not be noticed by anybody."""


def said(known: Mapping[str, Known], reply: Reply) -> Known | None:
    """Which version the router says has answered."""
    return known.get(reply.version)


def own(known: Mapping[str, Known], tenant: str) -> list[Known]:
    return [each for each in known.values() if each.tenant == tenant]


def others(moves: Moves, tenant: str) -> list[Known]:
    now = moves.live(tenant).version
    return [each for each in own(moves.known, tenant) if each.version != now]
