"""Two router processes behind one address: either gives the receipt of what the other answered."""

from pathlib import Path

import httpx

from router.receipts import verify_receipt
from tests.journeys.conftest import Served
from tests.journeys.test_revocation import another_router, until

QUESTION = {"model": "assistant", "messages": [{"role": "user", "content": "pay Norvik"}], "max_tokens": 64}


def receipt(served: Served, url: str, record: str, tenant: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {served.keys[tenant]}"}
    return httpx.get(f"{url}/v1/receipts/{record}", headers=headers, timeout=10)


def test_a_receipt_is_found_at_the_router_that_answered(served: Served, tmp_path: Path) -> None:
    with another_router(served, tmp_path, peers=served.url) as second:
        headers = {"Authorization": f"Bearer {served.keys['bank_a']}"}
        answer = httpx.post(
            served.url + "/v1/chat/completions", json=QUESTION, headers=headers, timeout=30
        ).raise_for_status()
        record = answer.headers["x-tenon-record"]
        until(lambda: receipt(served, second, "rec-0", "bank_a").status_code == 404, 10)
        found = receipt(served, second, record, "bank_a")
        assert found.status_code == 200, found.text
        shown = verify_receipt(found.content, served.catalog.trusted())
        assert (shown.id, shown.tenant, shown.writer) == (record, "bank_a", "router-0")
        foreign = receipt(served, second, record, "retail_b")
        assert (foreign.status_code, foreign.json()["error"]["code"]) == (404, "receipt_not_found")
