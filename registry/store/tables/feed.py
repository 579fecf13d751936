"""Rows of many nouns at once, for readers who follow the whole registry.

The nouns' own tables build one checked document a row; for 100,000 rows that takes ten seconds. Here the
columns of a slice become JSON and are checked together, by the same models, in a tenth of the time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Generic, TypeVar

import orjson
from pydantic import TypeAdapter, ValidationError
from sqlmodel import Session, col, select

from registry.canonical import Document, decode
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.log.entries import Head
from registry.models import (
    AliasState,
    Base,
    EngineState,
    Key,
    Policy,
    Routing,
    Slot,
    Tenant,
    VersionState,
)
from registry.promotions import Preparation
from registry.signing.envelope import Envelope
from registry.store.errors import StoreCorrupt
from registry.store.rows import (
    AliasRow,
    BaseRow,
    EngineRow,
    EntryRow,
    FrontierRow,
    HeadRow,
    KeyRow,
    PolicyRow,
    PreparationRow,
    RoutingRow,
    SlotRow,
    TenantRow,
    VersionRow,
)
from registry.store.tables.parsing import parsed

D = TypeVar("D", bound=Document)
_SLICE = 1000
"""Rows checked at a time: other threads get their turn in between."""
_ATTESTED = "engine.attested"
_WITHDREW = "engine.withdrew"
_ISOLATED = "tenant.isolated"


@dataclass(frozen=True, slots=True)
class _Noun(Generic[D]):
    model: type[D]
    row: Any
    columns: Mapping[str, str]
    """Field of the model -> column."""
    key: tuple[str, ...]
    """Columns that order it."""
    nested: frozenset[str] = frozenset()
    """Fields whose column holds JSON."""


def _noun(model: type[D], row: Any, fields: str, *, key: str, **special: Any) -> _Noun[D]:
    columns = {name: name for name in fields.split()} | special.pop("columns", {})
    return _Noun(model, row, columns, tuple(key.split()), frozenset(special.pop("nested", "").split()))


_TENANTS = _noun(
    Tenant, TenantRow, "id display_name suspended quota isolation", key="id", nested="quota isolation"
)
_KEYS = _noun(
    Key,
    KeyRow,
    "id tenant role secret_hash revoked expires_at label root quota",
    key="id",
    nested="quota",
)
_ALIASES = _noun(
    AliasState,
    AliasRow,
    "tenant adapter alias version epoch canaries shadows expires_at former",
    key="tenant adapter alias",
    nested="canaries shadows former",
)
_PREPARATIONS = _noun(
    Preparation, PreparationRow, "tenant adapter alias version epoch until", key="tenant adapter alias"
)
_VERSIONS = _noun(
    VersionState,
    VersionRow,
    "tenant adapter base rank revoked fingerprint",
    key="digest",
    columns={"version": "digest"},
)
_SLOTS = _noun(Slot, SlotRow, "engine boot version attestation", key="engine version")


@dataclass(frozen=True, slots=True)
class FeedTable:
    """``since``: only what an entry from there on changed. Everything comes in the order of its key."""

    session: Session

    def tenants(self, since: int = 0) -> tuple[Tenant, ...]:
        return tuple(chain.from_iterable(self._columns(_TENANTS, since)))

    def keys(self, since: int = 0) -> tuple[Key, ...]:
        return tuple(chain.from_iterable(self._columns(_KEYS, since)))

    def bases(self, since: int = 0) -> dict[Digest, Base]:
        return _joined(self._by_digest(Base, BaseRow, since))

    def policies(self, since: int = 0) -> dict[Digest, Policy]:
        return _joined(self._by_digest(Policy, PolicyRow, since))

    def routings(self, since: int = 0) -> tuple[Routing, ...]:
        return tuple(chain.from_iterable(self._documents(Routing, RoutingRow, RoutingRow.tenant, since)))

    def aliases(self, since: int = 0) -> tuple[AliasState, ...]:
        return tuple(chain.from_iterable(self._columns(_ALIASES, since)))

    def preparations(self, since: int = 0) -> tuple[Preparation, ...]:
        return tuple(chain.from_iterable(self._columns(_PREPARATIONS, since)))

    def versions(self, since: int = 0) -> tuple[VersionState, ...]:
        return tuple(chain.from_iterable(self._columns(_VERSIONS, since)))

    def engines(self, since: int = 0) -> tuple[EngineState, ...]:
        return tuple(chain.from_iterable(self._documents(EngineState, EngineRow, EngineRow.engine, since)))

    def slots(self) -> tuple[Slot, ...]:
        return tuple(chain.from_iterable(self._columns(_SLOTS, 0)))

    def everything(self) -> Iterator[tuple[str, Iterator[list[Any] | dict[Digest, Any]]]]:
        """(field of a snapshot, its parts), a thousand documents in memory at a time."""
        yield "tenants", self._columns(_TENANTS, 0)
        yield "keys", self._columns(_KEYS, 0)
        yield "bases", self._by_digest(Base, BaseRow, 0)
        yield "policies", self._by_digest(Policy, PolicyRow, 0)
        yield "routings", self._documents(Routing, RoutingRow, RoutingRow.tenant, 0)
        yield "aliases", self._columns(_ALIASES, 0)
        yield "preparations", self._columns(_PREPARATIONS, 0)
        yield "versions", self._columns(_VERSIONS, 0)
        yield "engines", self._documents(EngineState, EngineRow, EngineRow.engine, 0)
        yield "slots", self._columns(_SLOTS, 0)

    def slots_of(self, engines: Iterable[str]) -> dict[str, tuple[Slot, ...]]:
        """Engine -> all of its slots, also when there are none."""
        names = sorted(engines)
        if not names:
            return {}
        found = list(chain.from_iterable(self._columns(_SLOTS, 0, col(SlotRow.engine).in_(names))))
        return {name: tuple(slot for slot in found if slot.engine == name) for name in names}

    def reattested(self, since: int) -> set[str]:
        """Engines that entries from ``since`` on attest about, or that withdrew. A failed attestation and a
        withdrawal remove slots and leave nothing in the tables to see it by."""
        recent = select(EntryRow.body).where(col(EntryRow.position) >= since)
        told = self.session.exec(recent.where(EntryRow.kind == _ATTESTED)).all()
        gone = self.session.exec(recent.where(EntryRow.kind == _WITHDREW)).all()
        isolated = self.session.exec(recent.where(EntryRow.kind == _ISOLATED)).all()
        engines = {_engine_of(body) for body in told} | {_withdrawn_from(body) for body in gone}
        return engines.union(*(_ended_on(body) for body in (*told, *isolated)))

    def size(self) -> int:
        """Entries in the log, and nothing checked: asked twenty times a second."""
        return self.session.execute(select(FrontierRow.size)).scalar_one_or_none() or 0

    def root_at(self, size: int) -> Digest | None:
        """The signed root over the first ``size`` entries; None where no transaction ended."""
        text = self.session.exec(select(HeadRow.envelope).where(HeadRow.size == size)).first()
        if text is None:
            return None
        try:
            return Head.parse(parsed(Envelope, text).body()).root
        except InvalidDocument:
            raise StoreCorrupt(f"the stored head of size {size} cannot be read") from None

    def _columns(self, noun: _Noun[D], since: int, *conditions: Any) -> Iterator[list[D]]:
        fields, columns = tuple(noun.columns), list(noun.columns.values())

        def value(values: Sequence[Any]) -> dict[str, Any]:
            found = dict(zip(fields, values, strict=True))
            for name in noun.nested:
                if found[name] is not None:
                    found[name] = orjson.Fragment(found[name])
                elif name == "isolation":
                    del found[name]
            return found

        wanted = select(*(getattr(noun.row, column) for column in columns)).where(*conditions)
        rows = self._rows(noun.row, wanted, since, [columns.index(column) for column in noun.key])
        return _checked(noun.model, rows, value)

    def _documents(self, model: type[D], row: Any, key: Any, since: int) -> Iterator[list[D]]:
        rows = self._rows(row, select(key, row.document), since, [0])
        return _checked(model, rows, lambda values: orjson.Fragment(values[1]))

    def _by_digest(self, model: type[D], row: Any, since: int) -> Iterator[dict[Digest, D]]:
        rows = self._rows(row, select(row.digest, row.document), since, [0])
        for digest, text in rows:
            if Digest.of(text.encode("utf-8", "surrogatepass")) != digest:
                raise StoreCorrupt(f"the stored {model.__name__} is not {digest}")
        digests = (Digest(row[0]) for row in rows)
        for documents in _checked(model, rows, lambda values: orjson.Fragment(values[1])):
            yield dict(zip(islice(digests, len(documents)), documents, strict=True))

    def _rows(self, row: Any, wanted: Any, since: int, key: Sequence[int]) -> Sequence[Any]:
        """Put in order here: with ORDER BY, SQLite walks the whole table by its key instead of looking a few
        rows up by their entry, and PostgreSQL has its own order of letters."""
        if since:
            wanted = wanted.where(col(row.entry) >= since)
        # Past the ORM: it takes longer per row than everything else.
        return sorted(self.session.connection().execute(wanted).all(), key=itemgetter(*key))


def _checked(model: type[D], rows: Sequence[Any], value: Callable[[Any], Any]) -> Iterator[list[D]]:
    adapter = TypeAdapter(list[model])  # type: ignore[valid-type]
    for start in range(0, len(rows), _SLICE):
        some = rows[start : start + _SLICE]
        try:
            documents = adapter.validate_json(orjson.dumps([value(row) for row in some]))
        except (ValidationError, orjson.JSONEncodeError):
            raise StoreCorrupt(f"a stored {model.__name__} cannot be read") from None
        if len(documents) != len(some):
            raise StoreCorrupt(f"a stored {model.__name__} is more than one")
        yield documents


def _joined(parts: Iterable[dict[Digest, D]]) -> dict[Digest, D]:
    return {digest: document for part in parts for digest, document in part.items()}


def _engine_of(body: str) -> str:
    try:
        attested = decode(Envelope.build(decode(body)["envelope"]).body())
        return str(attested["engine"])
    except (InvalidDocument, KeyError, TypeError):
        raise StoreCorrupt("a stored attestation cannot be read") from None


def _ended_on(body: str) -> set[str]:
    try:
        return {str(engine) for engine, _ in decode(body).get("ended", ())}
    except (InvalidDocument, AttributeError, TypeError, ValueError):
        raise StoreCorrupt("a stored entry about slots cannot be read") from None


def _withdrawn_from(body: str) -> str:
    try:
        return str(decode(body)["withdrawal"]["engine"])
    except (InvalidDocument, KeyError, TypeError):
        raise StoreCorrupt("a stored withdrawal cannot be read") from None
