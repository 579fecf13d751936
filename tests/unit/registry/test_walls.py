"""The second wall: queries that forget their tenant find and change nothing of another one.

The queries here are wrong on purpose: the first wall is every query's own condition.
"""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Table
from sqlmodel import select

from registry.catalog.local.catalog import LocalCatalog
from registry.counting import Count, CountReport
from registry.digests import Digest
from registry.errors import NotFound, TenonError
from registry.models import Role, Tenant
from registry.names import AdapterName, Ref
from registry.promotions import Protection
from registry.signing import types
from registry.signing.envelope import Envelope
from registry.store.errors import ScopeViolated
from registry.store.rows import Row, VersionRow
from registry.store.transaction import Transaction
from registry.store.walls import OPEN, walled
from registry.usage import UsageBatch, UsageLine
from tests.support.chains import ship_one
from tests.support.postgres import PostgresServer
from tests.support.registries import GATE, NAME, World, open_world, route, signer

THEIRS = AdapterName("retail_b", "assistant")
OWNER_OF = {
    "answers": "false",  # nobody's: the platform's book-keeping
    "counts": "false",
    "reports": "EXISTS (SELECT FROM versions v WHERE v.digest = version AND v.tenant = '{}')",
    "slots": "EXISTS (SELECT FROM versions v WHERE v.digest = version AND v.tenant = '{}')",
    "tenants": "id = '{}'",
    "usage_writers": "false",
}
"""Table -> whose row it is, said without the wall; every other table has a column for it."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[World]:
    """Two tenants with rows in every table that is behind the wall. No test changes it."""
    with postgres.database() as url:
        world = open_world(tmp_path_factory.mktemp("full"), store=url)
        for name in (NAME, THEIRS):
            _fill(world, name)
        yield world
        world.database.close()


def _fill(world: World, name: AdapterName) -> None:
    catalog, tenant = world.catalog, name.tenant
    policy = world.policy(tenant)
    here = route(policy).model_copy(update={"tenant": tenant})
    catalog.publish_routing(tenant, routes=[here], actor="test")
    catalog.issue_key(tenant, role=Role.INFERENCE, actor="test")
    version = world.promoted(name)
    engine = world.engine()
    catalog.announce(engine, actor="test")
    catalog.attest(world.attestation(version), actor="test")
    catalog.sign_version(version, _signature(catalog, version), actor="test")
    catalog.protect(Protection(tenant=tenant, alias="stable", approvals=1), actor="test")
    catalog.propose(name, version, gate=GATE, alias="stable", actor="test")
    catalog.prepare(name, version, seconds=60, actor="test")
    line = UsageLine(
        tenant=tenant, adapter=name.adapter, version=version, day="2026-01-01",
        requests=1, prompt_tokens=1, completion_tokens=1,
    )  # fmt: skip
    catalog.count_usage(UsageBatch(writer=f"router-{len(tenant)}", seq=1, lines=(line,)))
    count = Count(subject=f"tenant/{tenant}", kind="day", slot=20454, value=1)  # of 2026-01-01
    catalog.exchange_counts(CountReport(writer=f"router-{len(tenant)}", seq=1, counts=(count,)))
    ship_one(world, f"router-{len(tenant)}", tenant)


def _signature(catalog: LocalCatalog, version: Digest) -> Envelope:
    return signer("trainer").sign(types.MANIFEST, catalog.manifest(version).canonical())


def _all(rows: Transaction, table: Table) -> int:
    return int(rows._session.connection().exec_driver_sql(f"SELECT count(*) FROM {table.name}").scalar_one())


def _counts(world: World, scope: str | None) -> dict[str, int]:
    database = world.database.within(scope) if scope else world.database
    with database.read() as rows:
        return {name: _all(rows, Row.metadata.tables[name]) for name in walled()}


def _owned(world: World, tenant: str) -> dict[str, int]:
    """What the superuser, whom no wall stops, counts as this tenant's."""
    with psycopg.connect(world.address.replace("tenon@", "postgres@")) as connection:
        return {
            name: connection.execute(
                f"SELECT count(*) FROM {name} WHERE {OWNER_OF.get(name, 'tenant = {!r}').format(tenant)}"
            ).fetchone()[0]  # type: ignore[index]
            for name in walled()
        }


def test_a_query_without_a_condition_finds_own_rows_only(full: World) -> None:
    everything = _counts(full, None)
    for tenant in ("bank_a", "retail_b"):
        own = _owned(full, tenant)
        assert _counts(full, tenant) == own
        for table in set(own) - {"answers", "counts", "usage_writers"}:
            assert 0 < own[table] < everything[table], table
    assert set(_counts(full, "nobody").values()) == {0}


def test_who_says_nothing_sees_nothing(full: World) -> None:
    with psycopg.connect(full.address) as connection:
        for name in walled():
            for scope in (None, "", "bank_a%", "BANK_A", "bank_a,retail_b"):
                if scope is not None:
                    connection.execute("SELECT set_config('tenon.scope', %s, true)", [scope])
                counted = connection.execute(f"SELECT count(*) FROM {name}")
                assert counted.fetchone() == (0,), (name, scope)
            connection.rollback()


def test_a_change_without_a_condition_changes_own_rows_only(full: World) -> None:
    own = _owned(full, "bank_a")
    for table in set(own) - {"entries"}:
        column = next(iter(Row.metadata.tables[table].columns)).name
        with full.database.within("bank_a").write() as rows:
            found = rows._session.connection().exec_driver_sql(f"UPDATE {table} SET {column} = {column}")
            assert found.rowcount == own[table], table
    with pytest.raises(ZeroDivisionError), full.database.within("bank_a").write() as rows:  # noqa: PT012
        for table in ("slots", "reports", "signatures", "usage", "proposals", "keys"):
            found = rows._session.connection().exec_driver_sql(f"DELETE FROM {table}")
            assert found.rowcount == own[table] > 0
        _ = 1 / 0  # so that all of it stays


_ENTRY = (
    "INSERT INTO entries (position, at, actor, kind, subject, body, leaf, salt, tenant)"
    " VALUES (999, '', '', '', '', '', '', '', {})"
)
FOREIGN = {
    "a tenant": "INSERT INTO tenants (id, display_name, suspended, quota, entry)"
    " VALUES ('', '', false, '', 0)",
    "a row of another tenant": "UPDATE protections SET tenant = 'retail_b', alias = 'x'",
    "a key of the platform": "UPDATE keys SET tenant = NULL",
    "an alias of a foreign version": "UPDATE aliases SET version = '{theirs}'",
    "a route to a foreign policy": "UPDATE routes SET policy = '{their_policy}'",
    "a report on a foreign version": "UPDATE reports SET version = '{theirs}'",
    "a slot of a foreign version": "UPDATE slots SET version = '{theirs}'",
    "a signature under a foreign version": "UPDATE signatures SET version = '{theirs}'",
    "usage of a foreign version": "UPDATE usage SET version = '{theirs}'",
    "an entry of the platform": _ENTRY.format("NULL"),
    "an entry of another tenant": _ENTRY.format("'retail_b'"),
    "an answer": "INSERT INTO answers (actor, key, request, headers, body, at)"
    " VALUES ('', '', '', '', '', '')",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_nothing_foreign_can_be_written(full: World, what: str) -> None:
    theirs = full.catalog.resolve(Ref(THEIRS, alias="live"))
    (their_policy,) = full.catalog.policies("retail_b")
    statement = FOREIGN[what].format(theirs=theirs, their_policy=their_policy.identity())
    with full.database.within("bank_a").read() as rows:
        ours = rows._session.exec(select(VersionRow.digest)).all()
    assert theirs not in ours
    with pytest.raises(ScopeViolated) as stopped, full.database.within("bank_a").write() as rows:
        rows._session.connection().exec_driver_sql(statement)
    assert stopped.value.code == "scope_violated"
    assert "retail_b" not in stopped.value.message
    assert full.catalog.verify() == []


def test_a_tenants_whole_work_fits_within_its_scope(tmp_path: Path, postgres: PostgresServer) -> None:
    """And ends in the same log as without: the platform's own verification finds nothing."""
    with postgres.database() as url:
        world = open_world(tmp_path, store=url)
        platform, world.catalog = world.catalog, world.catalog.within("bank_a")
        catalog = world.catalog
        key, _ = catalog.issue_key("bank_a", role=Role.TRAINER, actor="admin")
        catalog.rotate_key(key.id, overlap_seconds=60, actor="admin")
        catalog.revoke_key(key.id, actor="admin")
        catalog.publish_routing("bank_a", routes=[route(world.policy())], actor="admin")
        first, second = world.promoted(seed=1), world.promoted(seed=2)
        catalog.sign_version(second, _signature(catalog, second), actor="trainer")
        assert catalog.rollback(NAME, actor="admin").version == first
        catalog.promote(NAME, second, gate=GATE, percent=10, actor="admin")
        catalog.protect(Protection(tenant="bank_a", alias="live", approvals=1), actor="admin")
        proposal = catalog.propose(NAME, second, gate=GATE, actor="one")
        catalog.approve(proposal.id, actor="two")
        catalog.revoke(first, reason="x", actor="admin")
        assert {entry.kind for entry in catalog.entries(0, 1000)} >= {"version.pushed", "alias.moved"}
        assert len(catalog.history(NAME)) == 6
        assert platform.verify() == []
        assert world.catalog.head() == platform.head()
        world.database.close()


def test_a_scoped_catalog_knows_nobody_else(full: World) -> None:
    scoped = full.catalog.within("bank_a")
    theirs = full.catalog.resolve(Ref(THEIRS, alias="live"))
    assert [tenant.id for tenant in scoped.tenants()] == ["bank_a"]
    assert {name.tenant for name in scoped.adapters()} == {"bank_a"}
    for ask in (
        lambda: scoped.tenant("retail_b"),
        lambda: scoped.manifest(theirs),
        lambda: scoped.reports(theirs),
        lambda: scoped.keys("retail_b"),
        lambda: scoped.routing("retail_b"),
        lambda: scoped.usage("retail_b", first_day="2026-01-01", last_day="2026-01-02"),
    ):
        with pytest.raises(NotFound):
            ask()
    with pytest.raises(TenonError):
        scoped.create_tenant(Tenant(id="evil", display_name="Evil"), actor="test")
    assert {slot.version for slot in scoped.snapshot().slots}.isdisjoint({theirs})
    assert full.catalog.verify() == []


def test_every_table_is_behind_the_wall_or_says_why_not() -> None:
    """A new table without a decision is walled, and then `test_the_walls_stand` wants its policy."""
    assert set(OPEN) < set(Row.metadata.tables)
    assert all(OPEN.values())
    for name in OPEN:
        table = Row.metadata.tables[name]
        assert "tenant" not in table.columns, f"{name} names a tenant"
        named = {key.column.table.name for key in table.foreign_keys}
        assert named <= set(OPEN), f"{name} points at {named - set(OPEN)}, which is behind the wall"


def test_the_walls_stand(postgres: PostgresServer) -> None:
    """In the migrated database and not in what the code hopes: policies that bind everybody, for reading and
    for writing."""
    with postgres.database() as url, psycopg.connect(url) as connection:
        guarded = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
            " AND relrowsecurity AND relforcerowsecurity"
        ).fetchall()
        policies = connection.execute(
            "SELECT tablename, permissive, roles, cmd, qual, coalesce(with_check, qual) FROM pg_policies"
        ).fetchall()
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert sorted(name for (name,) in guarded) == sorted(walled())
    assert {name for (name,) in tables} == {*walled(), *OPEN, "alembic_version"}
    assert sorted(policy[0] for policy in policies) == sorted(walled())  # one each: a second one would be OR
    for table, _, roles, command, visible, allowed in policies:
        assert (roles, command) == (["public"], "ALL")
        for condition in (visible, allowed):
            assert "tenon.scope" in condition, table
            assert condition.count("true") == condition.count("tenon.scope'::text, true"), table
