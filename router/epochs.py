"""Conversations keep their epoch: one that began before a promotion is answered by what it began with, while
that is the alias's former version and some engine serves it (docs/concepts/promotion.md).

This router remembers what it answered; a client that sends ``x-tenon-epoch`` back with its conversation is
understood by every router. What is remembered is the epoch of the newest answer, and an answer of the former
version carries that version's own epoch, so that both say the same. 0 stands for an answer of a canary: it is
nobody's to keep, for who gets a canary is decided by its share.
"""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b

from router.errors import DuplicateHeader, EpochInvalid
from router.headers import Headers
from router.resolution import Target

EPOCH = "x-tenon-epoch"
HEADER = EPOCH.encode()
MOST = 100_000
"""Conversations, of all tenants: some 25 MB."""
MOST_EACH = 10_000
"""Of one tenant: whoever names a new conversation in every request makes nobody else's forgotten."""
SECONDS = 24 * 3600.0
_DIGITS = 15
"""More no number in JSON holds exactly."""


class Epochs:
    """By tenant first: what is kept of one tenant is never looked up for another."""

    def __init__(
        self,
        ticks: Callable[[], float],
        *,
        most: int = MOST,
        most_each: int = MOST_EACH,
        seconds: float = SECONDS,
    ) -> None:
        self._ticks = ticks
        self._most, self._most_each, self._seconds = most, most_each, seconds
        self._known: OrderedDict[str, OrderedDict[bytes, tuple[int, float]]] = OrderedDict()
        """Tenant -> conversation -> (epoch, when). Both in the order of the newest answers."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def began(self, tenant: str, adapter: str, alias: str, unit: str, headers: Headers) -> int:
        """The epoch that the conversation is in; 0 for a new one. Raises EpochInvalid, DuplicateHeader."""
        sent = headers.every(EPOCH)
        if sent:
            return parsed(sent)
        mine = self._known.get(tenant)
        if mine is None:
            return 0
        epoch, at = mine.get(_key(adapter, alias, unit), _NOTHING)
        return epoch if self._ticks() - at < self._seconds else 0

    def answered(self, unit: str, target: Target) -> None:
        route = target.route
        mine = self._known.get(route.tenant)
        if mine is None:
            mine = self._known[route.tenant] = OrderedDict()
        key = _key(route.adapter, route.alias, unit)
        self._count += key not in mine
        mine[key] = (epoch_of(target), self._ticks())
        mine.move_to_end(key)
        self._known.move_to_end(route.tenant)
        if len(mine) > self._most_each:
            mine.popitem(last=False)
            self._count -= 1
        if self._count > self._most:
            self._forget()

    def _forget(self) -> None:
        """The oldest of the tenant that has asked nothing for longest."""
        tenant = next(iter(self._known))
        quiet = self._known[tenant]
        quiet.popitem(last=False)
        self._count -= 1
        if not quiet:
            del self._known[tenant]


def names_conversation(unit: str) -> bool:
    """Of :func:`router.resolution.unit_of`: the other kinds are ``user …`` and ``key …``."""
    return unit.startswith("conversation ")


def epoch_of(target: Target) -> int:
    return 0 if target.live.canary else target.live.epoch


def parsed(sent: list[str]) -> int:
    """Strictly: a client that sends something else back than it was sent has a fault that would show itself
    only at the next promotion."""
    if len(sent) > 1:
        raise DuplicateHeader(f"the header {EPOCH} was sent more than once", param=EPOCH)
    (text,) = sent
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS and (text == "0" or text[0] != "0")):
        raise EpochInvalid(f"the header {EPOCH} is no number", param=EPOCH)
    return int(text)


_NOTHING = (0, 0.0)


def _key(adapter: str, alias: str, unit: str) -> bytes:
    """16 bytes, however long the conversation's name is."""
    named = "\0".join((adapter, alias, unit))
    return blake2b(named.encode("utf-8", "surrogatepass"), digest_size=16).digest()
