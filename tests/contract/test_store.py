"""What every database must do for a registry."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from registry.digests import Digest
from registry.errors import InvalidName, TenonError
from registry.models import Tenant
from registry.signing import types
from registry.store.errors import StoreBusy, StoreConflict
from registry.store.port import Store
from registry.store.transaction import Transaction
from tests.support.registries import route, signer
from tests.support.stores import connect


@pytest.fixture
def database(store: str) -> Iterator[Store]:
    with closing(connect(store)) as made:
        yield made


def _tenant(name: str) -> Tenant:
    return Tenant(id=name, display_name=name)


def _sql(rows: Transaction, statement: str) -> None:
    rows._session.connection().exec_driver_sql(statement)


def test_all_or_nothing(database: Store) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as rows:  # noqa: PT012
        rows.tenants.add(_tenant("bank_a"), entry=0)
        _ = 1 / 0
    with database.read() as rows:
        assert not rows.tenants.has("bank_a")
    with database.write() as rows:
        rows.tenants.add(_tenant("bank_a"), entry=0)
    with database.read() as rows:
        assert rows.tenants.all() == (_tenant("bank_a"),)


def test_a_reader_sees_one_moment_and_does_not_wait(database: Store) -> None:
    with database.read() as before:
        assert before.tenants.all() == ()
        with database.write() as rows:
            rows.tenants.add(_tenant("bank_a"), entry=0)
        assert before.tenants.all() == ()
    with database.read() as after:
        assert after.tenants.has("bank_a")


def test_a_reader_cannot_write(database: Store) -> None:
    with pytest.raises(TenonError) as refused, database.read() as rows:
        rows.tenants.add(_tenant("bank_a"), entry=0)
    assert refused.value.code == "store_unavailable"


def test_a_second_writer_waits_and_then_says_so(database: Store, store: str) -> None:
    with closing(connect(store, busy_timeout=0.05)) as other:
        with database.write(), pytest.raises(StoreBusy), other.write():
            pass
        with pytest.raises(StoreBusy), other.write(), other.write():
            pass  # the same process: refused instead of a deadlock
        with other.write() as rows:  # and neither refusal left anything locked
            rows.tenants.add(_tenant("bank_a"), entry=0)


def test_a_writer_that_waited_sees_what_it_waited_for(database: Store, store: str) -> None:
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with database.write() as rows:
            rows.tenants.add(_tenant("first"), entry=0)
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with closing(connect(store)) as other:
        threading.Timer(0.05, leave.set).start()
        with other.write() as rows:
            assert rows.tenants.has("first")
    thread.join()


def test_many_writers_lose_nothing_and_see_each_other(database: Store) -> None:
    """Each counts what is there and adds one: two that saw the same count would write the same name."""

    def add(_: int) -> None:
        with database.write() as rows:
            rows.tenants.add(_tenant(f"t{len(rows.tenants.all())}"), entry=0)

    with ThreadPoolExecutor(40) as pool:
        assert len(list(pool.map(add, range(120)))) == 120
    with database.read() as rows:
        assert {tenant.id for tenant in rows.tenants.all()} == {f"t{number}" for number in range(120)}


def test_foreign_keys_hold(database: Store) -> None:
    with pytest.raises(StoreConflict), database.write() as rows:
        rows.routes.replace("nobody", [route(Digest.of(b"no policy"))], entry=0)


def test_one_name_is_there_once(database: Store) -> None:
    with database.write() as rows:
        rows.tenants.add(_tenant("bank_a"), entry=0)
    with pytest.raises(StoreConflict), database.write() as rows:
        rows.tenants.add(_tenant("bank_a"), entry=1)


@pytest.mark.parametrize("statement", ["DELETE FROM heads", "UPDATE heads SET size = size + 100"])
def test_the_log_only_grows(database: Store, statement: str) -> None:
    with database.write() as rows:
        rows.log.add_head(1, signer("log").sign(types.LOG_HEAD, b"x"))
    with pytest.raises(StoreConflict, match="append-only"), database.write() as rows:
        _sql(rows, statement)
    with database.write() as rows:
        assert [size for size, _ in rows.log.head_texts()] == [1]


def test_letters_sort_as_bytes(database: Store) -> None:
    """Pages are cut by order: "-" < "0" < "_" < "a", in whatever language the server was set up."""
    names = ["a", "a-b", "a-c", "a0", "a_b", "ab", "b"]
    with database.write() as rows:
        for name in reversed(names):
            rows.tenants.add(_tenant(name), entry=0)
    with database.read() as rows:
        assert [tenant.id for tenant in rows.tenants.all()] == names


def test_a_sound_database_finds_nothing_wrong_with_itself(database: Store) -> None:
    with database.read() as rows:
        assert rows.integrity() == ()


def test_a_scope_is_a_tenants_name(database: Store) -> None:
    for name in ("*", "", "a'b", "../x"):
        with pytest.raises(InvalidName):
            database.within(name)
    with database.within("bank_a").write() as rows:
        rows.tenants.add(_tenant("bank_a"), entry=0)
    with database.within("bank_a").read() as rows:
        assert rows.tenants.has("bank_a")
