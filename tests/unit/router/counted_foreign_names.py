"""What is another tenant's and what does not exist are one refusal: in text, status, headers and work."""

import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import product
from types import FrameType
from typing import Any

from registry.models import Role
from tests.unit.router.driving import House, Response


async def worked(ask: Callable[[], Awaitable[Response]]) -> tuple[Response, Counter[str]]:
    """The response, and how often each function of ours was called for it."""
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.startswith(("router.", "registry.")) and "records" not in name:
            calls[f"{name}.{frame.f_code.co_qualname}"] += 1

    sys.setprofile(note)
    try:
        response = await ask()
    finally:
        sys.setprofile(None)
    return response, calls


def same(one: tuple[Response, Counter[str]], other: tuple[Response, Counter[str]]) -> None:
    record = {"x-tenon-record", "x-request-id"}
    (first, work), (second, other_work) = one, other
    assert (first.status, first.body) == (second.status, second.body)
    assert first.headers.keys() == second.headers.keys()
    assert {n: v for n, v in first.headers.items() if n not in record} == {
        n: v for n, v in second.headers.items() if n not in record
    }
    assert work == other_work
    assert work.total() > 5


async def test_a_foreign_model_and_none(house: House) -> None:
    bank = house.scene.serve("bank_a")
    house.scene.serve("retail_b", model="cashier")
    await house.publish()
    await house.ask(bank)  # what is found out once was found out
    for stream, before in product((False, True), (0, 1, 2)):  # recorded, the first that is counted, another
        asked = []
        for name in ("cashier", "nothing"):
            await house.next_second()
            for _ in range(before):
                await house.ask(bank, {"model": "never-was"})
            asked.append(await worked(partial(house.ask, bank, {"model": name, "stream": stream})))
        assert asked[0][0].code == "model_not_found"
        assert ("x-tenon-record" in asked[0][0].headers) == (before == 0)
        same(*asked)


async def test_a_foreign_receipt_and_none(house: House) -> None:
    bank, retail = house.scene.serve("bank_a"), house.scene.serve("retail_b")
    await house.publish()
    theirs = (await house.ask(retail)).record
    await house.ask(bank)
    asked = [
        await worked(partial(house.get, f"/v1/receipts/{record}", bank))
        for record in (theirs, "rec-" + "0" * 32)
    ]
    assert asked[0][0].status == 404
    same(*asked)


async def test_a_foreign_tenant_header_and_one_of_nobody(house: House) -> None:
    bank = house.scene.serve("bank_a")
    house.scene.serve("retail_b")
    await house.publish()
    await house.ask(bank)
    asked = []
    for tenant in ("retail_b", "nobody_x"):
        await house.next_second()
        asked.append(await worked(partial(house.ask, bank, headers={"X-Tenant-ID": tenant})))
    assert asked[0][0].code == "tenant_mismatch"
    same(*asked)


async def test_a_revoked_key_and_one_that_never_was_are_told_the_same(house: House) -> None:
    house.scene.serve("bank_a")
    revoked = house.scene.key("bank_a", Role.INFERENCE, revoked=True)
    await house.publish()
    first, second = await house.ask(revoked), await house.ask(revoked[:-1] + "B")
    assert (first.status, first.body) == (second.status, second.body) == (401, second.body)
