"""Lists at the size that one registry must carry: 10,000 tenants, 50,000 versions."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import insert, text

from registry.canonical import encode
from registry.catalog.versions import VersionSummary
from registry.digests import Digest
from registry.models import Tenant
from registry.names import AdapterName
from registry.store.rows import EntryRow, KeyRow, ReportRow, TenantRow, UsageRow, VersionRow
from registry.usage import By
from tests.support.postgres import PostgresServer
from tests.support.registries import World, open_world
from tests.support.stores import KINDS, fresh
from tests.support.work import Work, counted

TENANTS, VERSIONS, PAGE = 10_000, 50_000, 50
PAGES = Work(steps=2_000, rows=26_000)
"""For one page: what it shows; PostgreSQL may think it quicker to read all of one adapter."""
SUMS = Work(steps=250_000, rows=31_000)
"""For a page of what is made from all rows of a tenant or of a version: none of another's."""
BIG = AdapterName("t00000", "big")
T = TypeVar("T")


def _digest(number: int) -> str:
    return str(Digest.of(f"version {number}".encode()))


@pytest.fixture(scope="module", params=KINDS)
def crowded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Rows as they would be, without the work of 60,000 changes; half the versions are one adapter's."""
    folder = tmp_path_factory.mktemp("crowded")

    def server() -> PostgresServer:
        found: PostgresServer = request.getfixturevalue("postgres")
        return found

    with fresh(request.param, folder, server) as address:
        world = open_world(folder, store=address)
        with world.database.write() as rows:
            connection = rows._session.connection()
            start = rows.log.size()
            quota = '{"concurrent_requests":null,"requests_per_minute":null,"tokens_per_day":null,'
            quota += '"tokens_per_minute":null}'
            tenants = [f"t{number:05}" for number in range(TENANTS)]
            connection.execute(
                insert(TenantRow),
                [
                    {"id": name, "display_name": name, "suspended": False, "quota": quota, "entry": 0}
                    for name in tenants
                ],
            )
            connection.execute(
                insert(KeyRow),
                [
                    {
                        "id": f"{number:016x}", "tenant": BIG.tenant, "role": "inference",
                        "secret_hash": _digest(number), "revoked": False, "expires_at": None,
                        "label": "", "root": None, "issuer": "cli", "entry": 0,
                    }
                    for number in range(TENANTS)
                ],
            )  # fmt: skip
            connection.execute(
                insert(VersionRow),
                [
                    {
                        "digest": _digest(number), "base": str(world.base), "rank": 4, "manifest": "{}",
                        "tenant": BIG.tenant if number % 2 else tenants[number % TENANTS],
                        "adapter": BIG.adapter if number % 2 else f"a{number % 7}",
                        "pushed": start + number, "pushed_at": "2026-01-01T00:00:00.000000Z",
                        "revoked": False, "entry": start + number,
                    }
                    for number in range(VERSIONS)
                ],
            )  # fmt: skip
            connection.execute(
                insert(ReportRow),
                [
                    {"digest": _digest(-number), "version": _digest(number), "document": "{}", "entry": 0}
                    for number in range(0, VERSIONS, 3)
                ],
            )  # fmt: skip
            body = encode({"reason": "x"}).decode()
            connection.execute(
                insert(EntryRow),
                [
                    {
                        "position": start + number, "at": "2026-01-01T00:00:00.000000Z", "actor": "test",
                        "kind": "version.revoked", "subject": _digest(number), "body": body,
                        "leaf": "", "salt": "", "tenant": tenants[number % 2],
                    }
                    for number in range(VERSIONS)
                ],
            )  # fmt: skip
            if request.param != "sqlite":
                connection.execute(text("ANALYZE"))
        yield world
        world.database.close()


def _cheap(ask: Callable[[], Sequence[T]], size: int = PAGE, *, most: Work = PAGES) -> Sequence[T]:
    with counted() as work:
        found = ask()
    assert len(found) == size
    assert work.steps + work.rows > 0, "nothing was counted"
    assert work.steps <= most.steps
    assert work.rows <= most.rows
    return found


def test_tenants_at_any_depth(crowded: World) -> None:
    for after in (None, "t05000", f"t{TENANTS - PAGE - 1:05}"):
        page: Sequence[Tenant] = _cheap(partial(crowded.catalog.tenants, after=after, limit=PAGE))
        assert after is None or page[0].id > after


def test_keys_at_any_depth(crowded: World) -> None:
    for number in (0, 5000, TENANTS - PAGE - 1):
        after = f"{number:016x}"
        page = _cheap(partial(crowded.catalog.keys, BIG.tenant, after=after, limit=PAGE))
        assert page[0].id == f"{number + 1:016x}"


def test_adapters_at_any_depth(crowded: World) -> None:
    for name in (None, BIG, AdapterName("t05000", "a1"), AdapterName("t09600", "a0")):
        page = _cheap(partial(crowded.catalog.adapters, after=name, limit=PAGE), most=SUMS)
        assert list(page) == sorted(page, key=lambda name: (name.tenant, name.adapter))
        assert name is None or name not in page
    rest = crowded.catalog.adapters(BIG.tenant, after=AdapterName(BIG.tenant, "a4"), limit=PAGE)
    assert rest == (AdapterName(BIG.tenant, "a5"), BIG)


def test_versions_at_any_depth(crowded: World) -> None:
    for number in (1, VERSIONS // 2 + 1, VERSIONS - 2 * PAGE - 1):
        after = Digest(_digest(number))
        page: Sequence[VersionSummary] = _cheap(
            partial(crowded.catalog.versions, BIG, after=after, limit=PAGE)
        )
        assert [item.version for item in page] == [_digest(number + 2 * step) for step in range(1, PAGE + 1)]
        evaluated = [(number + 2 * step) % 3 == 0 for step in range(1, PAGE + 1)]
        assert [item.state == "evaluated" for item in page] == evaluated
    assert crowded.catalog.version_count(BIG) == VERSIONS // 2
    other = Digest(_digest(4))  # of another adapter: it marks no place in this list
    assert crowded.catalog.versions(BIG, after=other, limit=1) == ()


def test_entries_at_any_depth(crowded: World) -> None:
    for start in (20, VERSIONS // 2, VERSIONS - 10 * PAGE):
        page = _cheap(partial(crowded.catalog.entries, start, PAGE))
        assert page[0].index == start
        with crowded.database.read() as rows:
            mine = _cheap(partial(rows.log.entries, start, PAGE, tenant=BIG.tenant))
        assert {entry.index - mine[0].index for entry in mine} == set(range(0, 2 * PAGE, 2))


def test_history_at_any_depth(crowded: World) -> None:
    with crowded.database.write() as rows:
        size = rows.log.size()
        alias = {"tenant": BIG.tenant, "adapter": BIG.adapter, "alias": "live", "version": _digest(1)}
        rows._session.connection().execute(
            insert(EntryRow),
            [
                {
                    "position": size + VERSIONS + number, "at": "2026-01-01T00:00:00.000000Z",
                    "actor": "test", "kind": "alias.moved", "subject": f"{BIG}:live",
                    "body": encode(
                        {"alias": alias | {"epoch": number + 1}, "from": None, "cause": "promotion"}
                    ).decode(),
                    "leaf": "", "salt": "", "tenant": BIG.tenant,
                }
                for number in range(10_000)
            ],
        )  # fmt: skip
    for number in (0, 5000, 10_000 - PAGE - 1):
        after = size + VERSIONS + number
        page = _cheap(partial(crowded.catalog.history, BIG, after=after, limit=PAGE))
        assert [move.epoch for move in page] == list(range(number + 2, number + 2 + PAGE))


def test_routings_reports_and_usage_at_any_depth(crowded: World) -> None:
    with crowded.database.write() as rows:
        size = rows.log.size()
        start, connection = size + 10 * VERSIONS, rows._session.connection()
        routes = [
            {
                "tenant": BIG.tenant, "name": f"r{number}", "model": "m", "when": {"x-day": f"d{number}"},
                "adapter": "big", "alias": "live", "policy": _digest(1),
            }
            for number in range(150)
        ]  # fmt: skip
        body = {"routing": {"tenant": BIG.tenant, "revision": 1, "headers": [], "routes": routes}}
        envelope = {"envelope": {"payload": "", "payloadType": "x", "signatures": []}}
        common: dict[str, object] = {
            "at": "2026-01-01T00:00:00.000000Z",
            "actor": "test",
            "leaf": "",
            "salt": "",
        }
        connection.execute(
            insert(EntryRow),
            [
                common | {
                    "position": start + number,
                    "kind": "routing.published" if number < 60 else "report.filed",
                    "subject": BIG.tenant if number < 60 else _digest(-number), "tenant": BIG.tenant,
                    "body": encode(body if number < 60 else envelope).decode(),
                }
                for number in range(10_060)
            ],
        )  # fmt: skip
        connection.execute(
            insert(ReportRow),
            [
                {
                    "digest": _digest(-VERSIONS - number), "version": _digest(1), "document": "{}",
                    "entry": start + number,
                }
                for number in range(60, 10_060)
            ],
        )  # fmt: skip
        connection.execute(
            insert(UsageRow),
            [
                {
                    "tenant": BIG.tenant, "day": f"2026-{1 + day // 28:02}-{1 + day % 28:02}",
                    "version": _digest(number), "adapter": BIG.adapter,
                    "requests": 1, "prompt_tokens": 2, "completion_tokens": 3,
                }
                for day in range(300) for number in range(1, 200, 2)
            ],
        )  # fmt: skip
    for place in (0, 30, 57):
        ask = partial(crowded.catalog.routings, BIG.tenant, after=start + place, limit=2)
        assert [move.entry for move in _cheap(ask, 2)] == [start + place + 1, start + place + 2]
    version = Digest(_digest(1))
    with crowded.database.read() as rows:
        for place in (60, 5000, 10_060 - PAGE - 1):
            after = Digest(_digest(-VERSIONS - place))
            reports = partial(rows.versions.reports_filed, version, after=after, limit=PAGE)
            filed = _cheap(reports, most=SUMS)
            assert filed == tuple(range(start + place + 1, start + place + 1 + PAGE))
            assert [entry.index for entry in _cheap(partial(rows.log.at, filed))] == list(filed)
    windows: tuple[tuple[By | None, str, int], ...] = (
        (None, "2026-12-31", 0),
        (None, "2026-12-31", 29_000),
        ("day", "2026-12-31", 0),
        ("day", "2026-12-31", 200),
        ("version", "2026-01-28", 0),
        ("version", "2026-01-28", 40),
    )
    for by, last_day, depth in windows:
        sums = partial(crowded.catalog.usage_sums, BIG.tenant, first_day="2026-01-01", last_day=last_day)
        whole = sums(by=by, limit=depth + 1)
        _cheap(partial(sums, by=by, after=whole[-1].key, limit=PAGE), most=SUMS)


def test_going_back_reads_no_further_than_it_must(crowded: World) -> None:
    """An alias of ten thousand moves: the writers' lock is held for the newest few."""
    with crowded.database.write() as rows:
        position = 20 * VERSIONS
        rows._session.connection().execute(
            insert(EntryRow),
            [
                {
                    "position": position + number, "at": "2026-01-01T00:00:00.000000Z", "actor": "test",
                    "kind": "alias.moved", "subject": "t00000/going:back", "leaf": "", "salt": "",
                    "tenant": BIG.tenant, "body": "{}",
                }
                for number in range(10_000)
            ],
        )  # fmt: skip
    with crowded.database.read() as rows:
        back = partial(rows.log.back, "alias.moved", "t00000/going:back")
        found = _cheap(lambda: [entry.index for entry, _ in zip(back(), range(PAGE), strict=False)])
        assert list(found) == list(range(position + 9_999, position + 9_999 - PAGE, -1))
        assert [entry.index for entry in back()] == list(range(position + 9_999, position - 1, -1))


def test_a_page_reads_a_page(crowded: World, tmp_path: Path) -> None:
    """No plan scans a table: a page costs what it shows, however many rows there are."""
    if not crowded.address.endswith("registry.db"):
        return
    plans = {
        "versions": "SELECT digest FROM versions WHERE tenant = 'x' AND adapter = 'y' AND pushed > 5"
        " ORDER BY pushed LIMIT 50",
        "entries": "SELECT position FROM entries WHERE tenant = 'x' AND position >= 5"
        " ORDER BY position LIMIT 50",
        "history": "SELECT position FROM entries WHERE kind = 'k' AND subject = 's' AND position > 5"
        " ORDER BY position LIMIT 50",
        "keys": "SELECT id FROM keys WHERE tenant = 'x' AND id > 'y' ORDER BY id LIMIT 50",
        "proposals": "SELECT id FROM proposals WHERE tenant = 'x' AND opened > 5 ORDER BY opened LIMIT 50",
        "reports": "SELECT 1 FROM reports WHERE version = 'x'",
    }
    with crowded.database.read() as rows:
        for name, query in plans.items():
            found = rows._session.connection().execute(text(f"EXPLAIN QUERY PLAN {query}")).all()
            said = "; ".join(str(row[3]) for row in found)
            assert "SCAN" not in said, (name, said)
            assert "TEMP B-TREE" not in said, (name, said)
