"""Receipts: offline proof of one outcome."""

import base64
from typing import Any

import orjson
import pytest

from registry.digests import Digest
from registry.errors import ReceiptInvalid, SignatureInvalid
from registry.signing.keys import Signer
from registry.signing.types import RECEIPT
from router.receipts import Statement, issue, verify_receipt
from tests.unit.router.driving import House


async def receipt(house: House, secret: str) -> tuple[bytes, bytes]:
    """(answer body, its receipt)."""
    answer = await house.ask(secret)
    found = await house.get(f"/v1/receipts/{answer.record}", secret)
    assert found.status == 200
    return answer.body, found.body


async def test_a_receipt_proves_who_answered(house: House, bank: str) -> None:
    body, data = await receipt(house, bank)
    record = verify_receipt(data, house.trusted)
    assert record.version == house.scene.versions[0].version
    assert record.answer == Digest.of(body)
    assert base64.b64decode(orjson.loads(data)["record"]) == record.canonical()


async def test_a_foreign_receipt_is_the_same_404_as_none(house: House, bank: str) -> None:
    retail = house.scene.serve("retail_b")
    await house.publish()
    mine, refused = await house.ask(bank), await house.ask(None)
    foreign = await house.get(f"/v1/receipts/{mine.record}", retail)
    unknown = await house.get("/v1/receipts/rec-0", retail)
    nobodys = await house.get(f"/v1/receipts/{refused.headers['x-request-id']}", bank)
    odd = await house.get("/v1/receipts/../../etc/passwd", bank)
    assert foreign.status == 404
    assert foreign.body == unknown.body == nobodys.body == odd.body
    assert (await house.get(f"/v1/receipts/{mine.record}")).code == "missing_api_key"


async def test_refusals_have_receipts_too(house: House, bank: str) -> None:
    refused = await house.ask(bank, {"model": "nothing"})
    found = await house.get(f"/v1/receipts/{refused.headers['x-request-id']}", bank)
    assert verify_receipt(found.body, house.trusted).code == "model_not_found"


def changed(data: bytes, **changes: Any) -> bytes:
    return orjson.dumps(orjson.loads(data) | changes)


async def test_what_is_wrong_is_said(house: House, bank: str) -> None:
    _, data = await receipt(house, bank)
    line = base64.b64decode(orjson.loads(data)["record"])
    forged = base64.b64encode(line.replace(b"bank_a", b"bank_b")).decode()
    with pytest.raises(ReceiptInvalid, match="the record was changed"):
        verify_receipt(changed(data, record=forged), house.trusted)
    with pytest.raises(ReceiptInvalid, match="not a receipt"):
        verify_receipt(b"{}", house.trusted)
    with pytest.raises(ReceiptInvalid, match="base64"):
        verify_receipt(changed(data, record="?"), house.trusted)
    with pytest.raises(SignatureInvalid, match="no trusted keys"):
        verify_receipt(data, {})
    stranger = Signer.generate("router").public
    with pytest.raises(SignatureInvalid, match="no valid signature"):
        verify_receipt(data, {stranger.id: stranger})
    _, second = await receipt(house, bank)
    with pytest.raises(ReceiptInvalid, match="the record was changed"):
        verify_receipt(changed(data, envelope=orjson.loads(second)["envelope"]), house.trusted)


@pytest.mark.parametrize("elsewhere", [{"writer": "router-1"}, {"seq": 5}], ids=["writer", "seq"])
async def test_the_signed_place_is_the_record_s_own(
    house: House, bank: str, elsewhere: dict[str, Any]
) -> None:
    """A router that signs a line as if it stood elsewhere shows two histories."""
    _, data = await receipt(house, bank)
    record = base64.b64decode(orjson.loads(data)["record"])
    own = Statement(writer="router-0", seq=0, record=Digest.of(record))
    moved = house.signer.sign(RECEIPT, own.model_copy(update=elsewhere).canonical())
    signed = house.signer.sign(RECEIPT, own.canonical())
    assert verify_receipt(changed(data, envelope=orjson.loads(signed.canonical())), house.trusted).seq == 0
    with pytest.raises(ReceiptInvalid, match="another place in the chain"):
        verify_receipt(changed(data, envelope=orjson.loads(moved.canonical())), house.trusted)


async def test_a_router_key_is_needed(house: House, bank: str) -> None:
    _, data = await receipt(house, bank)
    engine = Signer.generate("engine")
    line = base64.b64decode(orjson.loads(data)["record"])
    with pytest.raises(SignatureInvalid):
        verify_receipt(issue(line, engine).canonical(), house.trusted | {engine.public.id: engine.public})
