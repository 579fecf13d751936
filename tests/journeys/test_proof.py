"""Receipts, records, log and blobs: what was done can be proved, and one changed byte is noticed."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.digests import Digest
from server.assembly import stack
from tests.journeys.commands import tenon
from tests.journeys.conftest import Served

BODY: dict[str, Any] = {
    "model": "assistant",
    "messages": [{"role": "user", "content": "Pay 10.00 EUR to Kelra AB."}],
}


def asked(served: Served, tenant: str = "bank_a") -> httpx.Response:
    answer = httpx.post(
        f"{served.url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {served.keys[tenant]}"},
        json=BODY,
    )
    assert answer.status_code == 200, answer.text
    return answer


def receipt_of(served: Served, record: str, tenant: str = "bank_a") -> httpx.Response:
    return httpx.get(
        f"{served.url}/v1/receipts/{record}", headers={"Authorization": f"Bearer {served.keys[tenant]}"}
    )


def test_a_receipt_proves_which_adapter_answered(served: Served, tmp_path: Path) -> None:
    answer = asked(served)
    receipt = receipt_of(served, answer.headers["x-tenon-record"])
    file = tmp_path / "receipt.json"
    file.write_bytes(receipt.content)
    done = tenon("receipt", "verify", str(file), "--json", "-w", str(served.workspace.root))
    assert done.code == 0, done.err
    record = json.loads(done.out)["record"]
    assert record["version"] == served.versions["bank_a"]
    assert record["answer"] == Digest.of(answer.content)
    keys = tmp_path / "keys.json"
    keys.write_text(tenon("log", "keys", "-w", str(served.workspace.root)).out)
    shown = tenon("receipt", "verify", str(file), "--trust", str(keys))
    assert shown.code == 0
    assert Digest.of(answer.content) in shown.out


def test_another_tenant_cannot_have_the_receipt(served: Served) -> None:
    record = asked(served).headers["x-tenon-record"]
    foreign, unknown = receipt_of(served, record, "saas_c"), receipt_of(served, "rec_nobody", "saas_c")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json()["error"]["code"] == unknown.json()["error"]["code"]


def test_a_changed_receipt_is_refused(served: Served, tmp_path: Path) -> None:
    receipt = receipt_of(served, asked(served).headers["x-tenon-record"]).json()
    text = receipt["record"]
    at = len(text) // 2
    receipt["record"] = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(receipt))
    done = tenon("receipt", "verify", str(file), "-w", str(served.workspace.root))
    assert done.code == 1
    assert "receipt_invalid" in done.err
    assert "was changed" in done.err


@pytest.fixture
def stopped(own: Served) -> Served:
    asked(own)
    asked(own, "retail_b")
    stack.stop(own.workspace)
    assert tenon("log", "verify", "-w", str(own.workspace.root)).code == 0
    return own


def test_one_changed_byte_of_a_record_is_named(stopped: Served) -> None:
    (file,) = stopped.workspace.records.glob("*/000000.jsonl")
    data = bytearray(file.read_bytes())
    at = data.index(b'"tenant":"bank_a"') + len(b'"tenant":"b')
    data[at] = ord("x")
    file.write_bytes(bytes(data))
    done = tenon("log", "verify", "-w", str(stopped.workspace.root))
    assert done.code == 1
    assert f"{file.parent.name}/{file.name}" in done.err


def test_one_changed_byte_of_a_blob_is_named(stopped: Served) -> None:
    blob = max((p for p in stopped.workspace.blobs.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(bytes(data))
    done = tenon("log", "verify", "-w", str(stopped.workspace.root))
    assert done.code == 1
    assert blob.name[:12] in done.err
    version = next(
        v for v in stopped.versions.values() if blob.name in stopped.catalog.manifest(v).model_dump_json()
    )
    tenant = next(tenant for tenant, v in stopped.versions.items() if v == version)
    pulled = stopped.workspace.root / "pulled"
    done = tenon("adapter", "pull", f"{tenant}/assistant", str(pulled), "-w", str(stopped.workspace.root))
    assert (done.code, pulled.exists()) == (1, False)
    assert "blob_corrupt" in done.err


def test_one_changed_byte_of_the_log_is_named(stopped: Served) -> None:
    with sqlite3.connect(stopped.workspace.database) as database:
        names = [row[0] for row in database.execute("select name from sqlite_master where type = 'trigger'")]
        for name in names:
            database.execute(f'drop trigger "{name}"')
        database.execute("update entries set actor = 'tesu' where position = 7 and actor = 'test'")
        assert database.total_changes == 1
    done = tenon("log", "verify", "-w", str(stopped.workspace.root))
    assert done.code == 1
    assert "entry 7" in done.err
