"""Schemas that clients send: looked at one after the other, beside the event loop, of admitted requests only.

Compiling holds the interpreter (jsonschema-rs 0.60 releases no GIL), so a schema may take _MOST_WORK at most;
after a slow one the next waits three times as long as it took, so that all of them together never take more
than a quarter of the router. Tenants take turns.
"""

import asyncio
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson

from registry.errors import InvalidDocument
from registry.pattern_work import BYTES
from registry.policies import lint, patterns_work
from registry.schemas.validator import Validator
from router.errors import RouterError, SchemasTooLarge

MOST_WORK = 25_000
"""Microseconds, of the patterns of one schema: ``\\w{1,64}`` takes 17,000."""
MOST_OF_A_TENANT = 32 << 20
"""Bytes that the schemas of a tenant may take, those of its requests under way included."""
MOST_KEPT = 256 << 20
"""Of all tenants."""
_BYTES_OF_TEXT = 20
"""Of memory, for one of a schema's text: measured 11 to 17."""
_ENTRY_BYTES = 2_000
_SLOW_SECONDS = 0.005
_REST = 3
_LONGEST_REST = 0.5

Accepts = Callable[[Any], bool]


class Finding:
    """What a look at a schema told; ``accepts`` is None for one that cannot be applied."""

    __slots__ = ("__weakref__", "accepts", "weight", "why")

    def __init__(self, accepts: Accepts | None, why: str, weight: int) -> None:
        self.accepts, self.why, self.weight = accepts, why, weight


class ClientSchema:
    """Of one request; it judges nothing before it was read (:meth:`Schemas.read`)."""

    __slots__ = ("_accepts", "_finding", "look", "refusal", "scope", "spelled")

    def __init__(
        self,
        spelled: bytes,
        *,
        look: Callable[[bytes], Finding],
        refusal: Callable[[str], RouterError],
        scope: str = "",
    ) -> None:
        """``scope``: what ``look`` depends on beside the text. ``refusal``: of a finding's ``why``."""
        self.spelled, self.scope = spelled, scope
        self.look, self.refusal = look, refusal
        self._finding: Finding | None = None
        self._accepts: Accepts | None = None

    def take(self, finding: Finding) -> None:
        """Raises ``refusal``."""
        if finding.accepts is None:
            raise self.refusal(finding.why)
        self._finding, self._accepts = finding, finding.accepts

    def __call__(self, value: Any) -> bool:
        if self._accepts is None:
            raise RuntimeError("a schema that nobody has read")
        return self._accepts(value)


class _Key(NamedTuple):
    tenant: str
    scope: str
    spelled: bytes


def look(spelled: bytes) -> Finding:
    """The schema alone, whatever policy it meets."""
    weight = _ENTRY_BYTES + _BYTES_OF_TEXT * len(spelled)
    schema = orjson.loads(spelled)
    faults = lint(schema)
    if faults:
        # Three say what is wrong; a name in a pointer is the client's own.
        return Finding(None, "; ".join(str(fault)[:200] for fault in faults[:3]), weight)
    work = sum(work for _, work in patterns_work(schema))
    if work > MOST_WORK:
        return Finding(None, "its patterns are too large: repeat less, or use [A-Za-z0-9_] for \\w", weight)
    try:
        return Finding(Validator(schema).accepts, "", weight + work * BYTES)
    except InvalidDocument:
        return Finding(None, "not a JSON schema", weight)


class Schemas:
    """What was found out, refusals too; clients send the same few schemas with every request.

    Per tenant: no tenant throws another's out, or sees by the time it takes that another sent the same.
    """

    def __init__(self, ticks: Callable[[], float] = time.monotonic) -> None:
        self._ticks = ticks
        self._known: OrderedDict[_Key, Finding] = OrderedDict()
        self._kept = 0
        self._alive: dict[str, int] = {}
        """Bytes by tenant, of what is kept and of what requests under way still hold."""
        self._one = asyncio.Lock()
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @property
    def kept(self) -> int:
        """Bytes."""
        return self._kept

    def alive(self, tenant: str) -> int:
        """Bytes."""
        return self._alive.get(tenant, 0)

    async def read(self, tenant: str, schemas: Iterable[ClientSchema]) -> None:
        """Raises the refusal of a schema, or SchemasTooLarge."""
        for schema in schemas:
            key = _Key(tenant, schema.scope, schema.spelled)
            finding = self._known.get(key)
            if finding is None:
                finding = await self._look(key, schema)
            else:
                self._known.move_to_end(key)
            schema.take(finding)

    async def _look(self, key: _Key, schema: ClientSchema) -> Finding:
        # One of each tenant waits for the thread, so a hundred of one do not stand before another's first.
        async with self._turns.setdefault(key.tenant, asyncio.Lock()), self._one:
            found = self._known.get(key)
            if found is not None:
                return found
            began = self._ticks()
            found = await asyncio.to_thread(schema.look, schema.spelled)
            took = self._ticks() - began
            self._keep(key, found)
            if took > _SLOW_SECONDS:
                await asyncio.sleep(min(_REST * took, _LONGEST_REST))
            return found

    def _keep(self, key: _Key, found: Finding) -> None:
        tenant = key.tenant
        if self.alive(tenant) + found.weight > MOST_OF_A_TENANT:
            for other in [other for other in self._known if other.tenant == tenant]:
                self._forget(other)
                if self.alive(tenant) + found.weight <= MOST_OF_A_TENANT:
                    break
            else:
                raise SchemasTooLarge
        self._alive[tenant] = self.alive(tenant) + found.weight
        weakref.finalize(found, self._gone, tenant, found.weight).atexit = False
        self._known[key] = found
        self._kept += found.weight
        while self._kept > MOST_KEPT:
            self._forget(next(iter(self._known)))

    def _forget(self, key: _Key) -> None:
        self._kept -= self._known.pop(key).weight

    def _gone(self, tenant: str, weight: int) -> None:
        left = self._alive[tenant] - weight
        if left:
            self._alive[tenant] = left
        else:
            del self._alive[tenant]
