"""Receipts that another router holds."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router.receipts import Receipt, verify_receipt
from router.testing import FakePeers
from tests.unit.router.driving import House


@pytest.fixture
def peers() -> FakePeers:
    return FakePeers()


@pytest.fixture
async def behind(tmp_path: Path, peers: FakePeers) -> AsyncIterator[House]:
    house = House(tmp_path / "behind", peers=peers)
    house.scene.engine()
    await house.app.start()
    try:
        yield house
    finally:
        await house.app.stop()


@pytest.fixture
async def receipt(house: House, bank: str) -> tuple[str, bytes]:
    """(id, receipt) of an answer that ``house`` gave to bank_a."""
    answer = await house.ask(bank)
    return answer.record, (await house.get(f"/v1/receipts/{answer.record}", bank)).body


async def test_who_holds_the_record_is_asked(
    house: House, behind: House, peers: FakePeers, receipt: tuple[str, bytes]
) -> None:
    record, peers.receipts[record] = receipt
    secret = behind.scene.serve("bank_a")
    await behind.publish()
    found = await behind.get(f"/v1/receipts/{record}", secret)
    assert (found.status, found.body) == (200, peers.receipts[record])
    assert verify_receipt(found.body, house.trusted).id == record
    (asked,) = peers.asked
    assert asked == (record, [(b"authorization", f"Bearer {secret}".encode())]), (
        "and nothing else of the client"
    )


async def test_nobody_is_shown_what_is_anothers(
    behind: House, peers: FakePeers, receipt: tuple[str, bytes]
) -> None:
    """Even if a peer gives it away, or gives another record or no receipt at all."""
    record, mine = receipt
    retail = behind.scene.serve("retail_b")
    bank = behind.scene.serve("bank_a")
    await behind.publish()
    line = Receipt.parse(mine)
    peers.receipts = {record: mine, "rec-1": mine, "rec-2": b"{}", "rec-3": line.canonical()[:-1]}
    assert (await behind.get(f"/v1/receipts/{record}", retail)).code == "receipt_unavailable"
    for other in ("rec-1", "rec-2", "rec-3"):
        found = await behind.get(f"/v1/receipts/{other}", bank)
        assert (found.status, found.code) == (503, "receipt_unavailable")
    assert (await behind.get(f"/v1/receipts/{record}", bank)).status == 200


async def test_what_is_nowhere_is_not_found_and_what_may_be_somewhere_is_unavailable(
    behind: House, peers: FakePeers
) -> None:
    bank = behind.scene.serve("bank_a")
    await behind.publish()
    assert (await behind.get("/v1/receipts/rec-0", bank)).code == "receipt_not_found"
    peers.sure = False
    assert (await behind.get("/v1/receipts/rec-0", bank)).code == "receipt_unavailable"


async def test_a_router_that_is_asked_by_another_asks_nobody(behind: House, peers: FakePeers) -> None:
    bank = behind.scene.serve("bank_a")
    await behind.publish()
    asked = behind.call(bank, [b""], headers={"x-tenon-peer": "1"}, method="GET", path="/v1/receipts/rec-0")
    assert (await asked.done()).code == "receipt_not_found"
    assert (await behind.get("/v1/receipts/rec-0")).status == 401
    assert not peers.asked


async def test_its_own_records_are_not_asked_for(behind: House, peers: FakePeers) -> None:
    bank = behind.scene.serve("bank_a")
    await behind.publish()
    answer = await behind.ask(bank)
    found = await behind.get(f"/v1/receipts/{answer.record}", bank)
    assert verify_receipt(found.body, behind.trusted).id == answer.record
    assert not peers.asked
