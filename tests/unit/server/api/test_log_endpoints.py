"""The log over HTTP: who sees what of it, and that all of it can be checked."""

import json

import pytest

from registry.log.entries import Entry, Head
from registry.log.export import read_lines, verify_export
from registry.log.merkle import leaf_hash
from registry.log.statements import Consistency, Inclusion, raw
from registry.models import Role
from registry.signing.envelope import Envelope
from tests.support.control import ControlWorld
from tests.support.registries import signer

KEYS = {signer("log").public.id: signer("log").public}


def test_a_platform_admin_reads_and_checks_everything(bench: ControlWorld) -> None:
    bench.world.promoted()
    items: list[dict[str, object]] = []
    query: dict[str, str | int] = {"limit": 5}
    while True:
        page = bench.call("GET", "/log/entries", "platform_admin", params=query).json()
        items += page["items"]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    entries = [Entry.build(item) for item in items]
    assert [entry.index for entry in entries] == list(range(len(entries)))
    head = Head.parse(Envelope.build(bench.call("GET", "/log/head", "platform_admin").json()).body())
    assert head.size == len(entries)
    for index in (0, 3, head.size - 1):
        found = Inclusion.build(
            bench.call("GET", f"/log/inclusion?index={index}&size={head.size}", "platform_admin").json()
        )
        assert found.holds()
        assert (found.root, raw(found.leaf)) == (head.root, leaf_hash(entries[index].canonical()))
    proof = Consistency.build(bench.call("GET", "/log/consistency?first=3", "platform_admin").json())
    assert proof.holds()
    assert proof.second_root == head.root
    assert bench.call("GET", "/log/entries?start=4&limit=1", "platform_admin").json()["items"] == items[4:5]


def test_monitors_see_every_head(bench: ControlWorld) -> None:
    bench.secret("tenant_admin")
    sizes, query = [], {"limit": "3", "after": "2"}
    while True:
        page = bench.call("GET", "/log/heads", params=query).json()
        sizes += [Head.parse(Envelope.build(item).body()).size for item in page["items"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert sizes == list(range(3, sizes[-1] + 1))
    old = Head.parse(Envelope.build(bench.call("GET", "/log/head?size=4").json()).body())
    proof = Consistency.build(bench.call("GET", f"/log/consistency?first=4&second={sizes[-1]}").json())
    assert proof.holds()
    assert proof.first_root == old.root


def test_a_tenant_admin_sees_its_own_entries_only(bench: ControlWorld) -> None:
    bench.world.promoted()
    bench.world.catalog.issue_key("retail_b", role=Role.INFERENCE, actor="test")
    own = bench.call("GET", "/tenants/bank_a/log").json()["items"]
    assert own
    assert "retail" not in json.dumps(own).lower()
    rest = bench.call("GET", f"/tenants/bank_a/log?start={own[1]['index']}").json()["items"]
    assert rest == own[1:]
    for path in ("/log/entries", "/log/inclusion?index=0"):
        assert bench.call("GET", path).json()["code"] == "role_not_permitted"
    for path in ("log", "log/export"):
        answers = [bench.call("GET", f"/tenants/{tenant}/{path}") for tenant in ("retail_b", "nobody")]
        assert {answer.status_code for answer in answers} == {404}
        assert {answer.json()["code"] for answer in answers} == {"tenant_not_found"}


@pytest.mark.parametrize("role", ["tenant_admin", "platform_admin"])
def test_an_export_comes_whole(bench: ControlWorld, role: str) -> None:
    bench.world.promoted()
    answer = bench.call("GET", "/tenants/bank_a/log/export", role)
    assert answer.headers["content-type"].startswith("application/jsonl")
    found = verify_export(read_lines([answer.content]), KEYS)
    assert (found.faults, found.trusted, found.complete) == ((), True, True)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/log/inclusion?index=9999", 404, "entry_not_found"),
        ("/log/inclusion?index=-1", 400, "invalid_input"),
        ("/log/inclusion?index=2147483648", 400, "invalid_input"),
        ("/log/consistency?first=9999", 400, "invalid_input"),
        ("/log/consistency?first=2&second=1", 400, "invalid_input"),
        ("/log/head?size=9999", 404, "head_not_found"),
        ("/log/head?size=x", 400, "invalid_input"),
        ("/log/heads?cursor=x", 400, "invalid_cursor"),
    ],
)
def test_what_is_not_there_is_a_clear_error(bench: ControlWorld, path: str, status: int, code: str) -> None:
    answer = bench.call("GET", path, "platform_admin")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
