"""What may be asked: bodies, queries, cursors, ETags; and how a refusal looks."""

import json
from typing import Any

import pytest

from registry.models import Tenant
from server.api.pages import seal, unseal
from server.errors import InvalidCursor
from tests.support.control import PREFIX, ControlWorld
from tests.support.registries import GATE

PROBLEM = "application/problem+json"
AT = "/tenants/bank_a/keys"
ALIAS = "/tenants/bank_a/adapters/assistant/aliases/live"


def _refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    body: dict[str, Any] = answer.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, f"urn:tenon:error:{code}")
    assert "Traceback" not in answer.text
    return body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_document"),
        (b"{", "invalid_document"),
        (b"[]", "invalid_document"),
        (b"null", "invalid_document"),
        (b'{"role":"trainer","role":"inference"}', "invalid_document"),
        (b'{"role":"trainer","owner":"me"}', "invalid_document"),
        (b'{"role":"platform_admin"}', "invalid_document"),
        (b'{"role":"service"}', "invalid_document"),
        (b'{"role":"trainer","label":7}', "invalid_document"),
        (b'{"role":"trainer","label":NaN}', "invalid_document"),
        (b'{"role":"trainer\xff"}', "invalid_document"),
        (b'\xef\xbb\xbf{"role":"trainer"}', "invalid_document"),
        (b"[" * 100_000, "invalid_document"),
        (b'{"role":"trainer","expires_at":"tomorrow"}', "invalid_input"),
        (b'{"role":"trainer","expires_at":"2020-01-01T00:00:00Z"}', "expiry_invalid"),
    ],
)
def test_bodies_are_parsed_strictly(shared: ControlWorld, body: bytes, code: str) -> None:
    shared.secret("tenant_admin")
    count = len(shared.world.catalog.keys("bank_a"))
    sent = {"Content-Type": "application/json"}
    answer = shared.call("POST", AT, content=body, headers=sent)
    assert answer.status_code in (400, 422)
    _refused(answer, answer.status_code, code)
    assert len(shared.world.catalog.keys("bank_a")) == count


@pytest.mark.parametrize(
    "wish",
    [
        {"level": "dedicated", "engines": ["engine-0", "engine-0"]},
        {"level": "pinned", "engines": ["engine-0"]},
    ],
)
def test_engines_that_do_not_fit_the_level_are_a_fault_of_the_request(
    shared: ControlWorld, wish: dict[str, Any]
) -> None:
    answer = shared.call("PUT", "/tenants/bank_a/isolation", json=wish, role="platform_admin")
    _refused(answer, answer.status_code, "invalid_document")
    assert shared.world.catalog.tenant("bank_a").isolation.engines == ()


def test_a_body_that_is_too_large_or_of_another_kind(shared: ControlWorld) -> None:
    sent = {"Content-Type": "application/json"}
    _refused(shared.call("POST", AT, content=b" " * (1 << 20) + b"{}", headers=sent), 413, "body_too_large")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = shared.call("POST", AT, content=b'{"role":"trainer"}', headers={"Content-Type": kind})
        _refused(answer, 415, "media_type_not_supported")
    answer = shared.call(
        "POST",
        AT,
        content=b'{"role":"trainer"}',
        headers={"Content-Type": "application/json; charset=utf-8"},
    )
    assert answer.status_code == 201


def test_a_stranger_s_body_is_not_even_read(shared: ControlWorld) -> None:
    answer = shared.client.post(PREFIX + AT, content=b" " * (2 << 20))
    _refused(answer, 401, "key_refused")


def test_a_request_that_takes_no_body_takes_none(bench: ControlWorld) -> None:
    made = bench.call("POST", AT, json={"role": "trainer"}).json()["key"]["id"]
    answer = bench.call("DELETE", f"{AT}/{made}", content=b'{"really": true}')
    _refused(answer, 400, "invalid_input")
    assert bench.call("DELETE", f"{AT}/{made}", content=b"{}").status_code == 204


def test_a_role_that_a_key_cannot_have_is_answered_in_words(shared: ControlWorld) -> None:
    answer = shared.call("POST", AT, json={"role": "platform_admin"})
    assert answer.status_code in (400, 422)
    assert "'inference', 'trainer' or 'tenant_admin'" in answer.json()["title"]
    assert "<" not in answer.text


def test_unknown_and_repeated_queries_are_refused(shared: ControlWorld) -> None:
    """``dryrun`` instead of ``dry_run`` must not publish."""
    at = "/tenants/bank_a/routing"
    body: dict[str, list[str]] = {"routes": []}
    _refused(shared.call("PUT", f"{at}?dryrun=true", json=body), 400, "invalid_input")
    _refused(shared.call("PUT", f"{at}?dry_run=true&dry_run=false", json=body), 400, "invalid_input")
    _refused(shared.call("PUT", f"{at}?dry_run=perhaps", json=body), 400, "invalid_input")
    assert shared.world.catalog.routing("bank_a").revision == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/tenants/bank_a/", 404, "not_found"),
        ("DELETE", "/whoami", 405, "method_not_allowed"),
        ("GET", f"{AT}?limit=0", 400, "invalid_input"),
        ("GET", f"{AT}?limit=201", 400, "invalid_input"),
        ("GET", f"{AT}?limit=many", 400, "invalid_input"),
        ("GET", f"{AT}?cursor=", 400, "invalid_cursor"),
        ("GET", "/tenants/bank_a/adapters/UPPER", 400, "invalid_name"),
        ("GET", "/tenants/bank_a/adapters/..%2f..%2fretail_b", 404, "not_found"),
        ("GET", "/tenants/bank_a/adapters/assistant/versions/latest", 400, "invalid_digest"),
        ("GET", "/tenants/bank_a/policies/sha256:0", 400, "invalid_digest"),
        ("GET", f"/tenants/bank_a/policies/sha256:{'0' * 64}", 404, "policy_not_found"),
        ("DELETE", f"{AT}/0123456789abcdef", 404, "key_not_found"),
        ("DELETE", f"{AT}/%00", 404, "key_not_found"),
        ("GET", "/tenants/bank_a/usage?first_day=2026-02-30&last_day=2026-03-01", 400, "invalid_input"),
        ("GET", "/tenants/bank_a/usage?first_day=2026-03-02&last_day=2026-03-01", 400, "invalid_input"),
        ("GET", "/tenants/bank_a/usage?first_day=2020-01-01&last_day=2026-03-01", 400, "invalid_input"),
        ("GET", "/tenants/bank_a/usage", 400, "invalid_input"),
    ],
)
def test_refusals_are_problems(shared: ControlWorld, method: str, path: str, status: int, code: str) -> None:
    _refused(shared.call(method, path), status, code)


def test_a_method_that_is_not_there_says_which_are(shared: ControlWorld) -> None:
    assert shared.call("PATCH", "/whoami").headers["allow"] == "GET"


def test_a_bug_shows_nothing_of_itself(bench: ControlWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail of retail_b in /srv/registry.db")

    monkeypatch.setattr(bench.world.catalog, "keys", broken)
    body = _refused(bench.call("GET", AT), 500, "internal")
    assert set(body) == {"type", "title", "status", "code"}
    assert "retail_b" not in json.dumps(body)


def test_a_list_is_read_page_by_page(bench: ControlWorld) -> None:
    for number in range(7):
        bench.world.catalog.create_tenant(Tenant(id=f"t{number}", display_name="T"), actor="test")
    seen: list[str] = []
    cursor, pages = "", 0
    while True:
        answer = bench.call("GET", f"/tenants?limit=4{cursor}", "platform_admin").json()
        seen += [item["id"] for item in answer["items"]]
        pages += 1
        if answer["next"] is None:
            break
        cursor = f"&cursor={answer['next']}"
        bench.world.catalog.create_tenant(Tenant(id=f"a{pages}", display_name="T"), actor="test")
    assert seen == ["bank_a", "retail_b", *(f"t{number}" for number in range(7))]  # nobody twice or left out
    assert pages == 3
    exact = bench.call("GET", "/tenants/bank_a/protections?limit=1").json()
    assert exact == {"items": [], "next": None}


def test_short_lists_have_pages_too(bench: ControlWorld) -> None:
    for alias in ("live", "next", "old"):
        bench.call("PUT", f"/tenants/bank_a/protections/{alias}", json={"approvals": 1})
    first = bench.call("GET", "/tenants/bank_a/protections?limit=2").json()
    rest = bench.call("GET", f"/tenants/bank_a/protections?limit=2&cursor={first['next']}").json()
    assert [item["alias"] for page in (first, rest) for item in page["items"]] == ["live", "next", "old"]
    assert rest["next"] is None


def test_a_cursor_is_of_one_list_and_cannot_be_made(bench: ControlWorld) -> None:
    for _ in range(3):
        bench.call("POST", AT, json={"role": "trainer"})
    cursor = bench.call("GET", f"{AT}?limit=1").json()["next"]
    assert bench.call("GET", f"{AT}?limit=1&cursor={cursor}").status_code == 200
    swapped = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    for made in (swapped, cursor[1:], cursor + "A", cursor + "=", cursor[:20], "AAAA", "ä", "%00", "!!!!"):
        _refused(bench.call("GET", f"{AT}?cursor={made}"), 400, "invalid_cursor")
    _refused(bench.call("GET", f"/tenants?cursor={cursor}", "platform_admin"), 400, "invalid_cursor")
    other = bench.call("GET", f"/tenants/retail_b/keys?cursor={cursor}", "platform_admin")
    _refused(other, 400, "invalid_cursor")
    with pytest.raises(InvalidCursor):
        unseal(b"another secret", "/x", seal(b"secret", "/x", "after"))


def _promotion(version: str) -> dict[str, Any]:
    return {"version": version, "gate": GATE.model_dump(mode="json")}


def test_an_alias_is_compared_and_set(bench: ControlWorld) -> None:
    one, two = bench.world.evaluated(seed=1), bench.world.evaluated(seed=2)

    def promote(version: str, seen: str) -> Any:
        return bench.call("POST", f"{ALIAS}/promotions", json=_promotion(version), headers={"If-Match": seen})

    _refused(promote(one, '"1"'), 409, "alias_moved")
    made = promote(one, '"0"')
    assert (made.status_code, made.headers["etag"]) == (200, '"1"')
    assert made.json()["verdict"]["passed"]
    assert made.json()["alias"]["version"] == one
    assert bench.call("GET", ALIAS).headers["etag"] == '"1"'
    _refused(promote(two, '"0"'), 409, "alias_moved")
    assert promote(two, '"1"').headers["etag"] == '"2"'
    stale = {"If-Match": '"1"'}
    _refused(bench.call("POST", f"{ALIAS}/rollback", headers=stale), 409, "alias_moved")
    shadows = {"versions": [one]}
    _refused(bench.call("PUT", f"{ALIAS}/shadows", json=shadows, headers=stale), 409, "alias_moved")
    shown = bench.call("PUT", f"{ALIAS}/shadows", json=shadows, headers={"If-Match": '"2"'})
    assert (shown.status_code, shown.headers["etag"]) == (200, '"3"')
    bench.call("PUT", f"{ALIAS}/shadows", json={"versions": []}, headers={"If-Match": '"3"'})
    back = bench.call("POST", f"{ALIAS}/rollback", headers={"If-Match": '"4"'})
    assert back.json()["version"] == one
    for wrong in ("1", "*", 'W/"1"', '"1", "2"', '"-1"', '"01"', '""', '"٣"'):
        answer = bench.client.get(PREFIX + ALIAS, headers=bench.headers("tenant_admin"))
        assert answer.status_code == 200
        sent = {
            name: value.encode()
            for name, value in (bench.headers("tenant_admin") | {"If-Match": wrong}).items()
        }
        refused = bench.client.post(PREFIX + f"{ALIAS}/rollback", headers=sent)  # type: ignore[arg-type]
        _refused(refused, 400, "invalid_precondition")
    history = bench.call("GET", f"{ALIAS}/history?limit=2").json()
    rest = bench.call("GET", f"{ALIAS}/history?cursor={history['next']}").json()
    moves = [*history["items"], *rest["items"]]
    assert [move["epoch"] for move in moves] == [1, 2, 3, 4, 5]


def test_a_roll_back_that_waits(bench: ControlWorld) -> None:
    world = bench.world
    one, two = world.promoted(seed=1), world.promoted(seed=2)
    world.catalog.announce(world.engine(), actor="engine-0")
    world.catalog.attest(world.attestation(two), actor="engine-0")
    ready = f"{ALIAS}/rollback?require_ready=true"
    refused = _refused(bench.call("POST", ready), 409, "promotion_not_ready")
    assert "engine-0" not in json.dumps(refused)
    way = bench.call("GET", f"{ALIAS}/rollback")
    assert (way.json(), way.headers["etag"]) == ({"version": one, "epoch": 2}, '"2"')
    seen = {"If-Match": way.headers["etag"]}
    wanted = {"version": one, "seconds": 60}
    assert bench.call("POST", f"{ALIAS}/preparations", json=wanted, headers=seen).status_code == 200
    assert not bench.call("GET", f"{ALIAS}/preparations/{one}").json()["ready"]
    world.catalog.attest(world.attestation(one), actor="engine-0")
    assert bench.call("GET", f"{ALIAS}/preparations/{one}").json()["ready"]
    back = bench.call("POST", ready, headers=seen)
    assert (back.status_code, back.json()["version"], back.headers["etag"]) == (200, one, '"3"')
    _refused(bench.call("GET", f"{ALIAS}/rollback"), 409, "nothing_to_roll_back")
    _refused(bench.call("POST", f"{ALIAS}/rollback?require_ready=maybe"), 400, "invalid_input")


def test_routing_is_compared_and_set(bench: ControlWorld) -> None:
    at = "/tenants/bank_a/routing"
    policy = bench.world.policy()
    route = {
        "tenant": "bank_a",
        "name": "default",
        "model": "assistant",
        "adapter": "assistant",
        "policy": policy,
    }
    assert bench.call("GET", at).headers["etag"] == '"0"'
    dry = bench.call("PUT", f"{at}?dry_run=true", json={"routes": [route]})
    assert dry.status_code == 200
    assert {case["adapter"] for case in dry.json()["cases"]} == {"assistant"}
    assert bench.call("GET", at).json()["revision"] == 0
    made = bench.call("PUT", at, json={"routes": [route]}, headers={"If-Match": '"0"'})
    assert (made.status_code, made.headers["etag"]) == (200, '"1"')
    _refused(bench.call("PUT", at, json={"routes": []}, headers={"If-Match": '"0"'}), 409, "routing_changed")
    (move,) = bench.call("GET", f"{at}/history").json()["items"]
    assert move["routing"] == made.json()


def test_a_gate_that_refuses_says_why(bench: ControlWorld) -> None:
    version = bench.world.push()
    answer = bench.call("POST", f"{ALIAS}/promotions", json=_promotion(version))
    body = _refused(answer, 403, "gate_refused")
    assert not body["verdict"]["passed"]
    assert body["verdict"]["reasons"]
    empty = bench.call("POST", f"{ALIAS}/promotions", json={"version": version, "gate": {}})
    _refused(empty, 403, "gate_refused")


def test_what_was_found_is_under_every_name(bench: ControlWorld) -> None:
    """A version of one adapter, asked for under another adapter of the same tenant."""
    version = bench.world.promoted()
    at = "/tenants/bank_a/adapters"
    found = bench.call("GET", f"{at}/assistant/versions/{version}").json()
    assert (found["version"], found["state"], found["aliases"]) == (version, "live", ["live"])
    assert found["manifest"]["tenant"] == "bank_a"
    _refused(bench.call("GET", f"{at}/other/versions/{version}"), 404, "version_not_found")
    raw = bench.call("GET", f"{at}/assistant/versions/{version}/manifest", "trainer")
    assert raw.content == bench.world.catalog.manifest(version).canonical()
    (listed,) = bench.call("GET", at).json()["items"]
    assert (listed["adapter"], listed["versions"]) == ("bank_a/assistant", 1)
    (report,) = bench.call("GET", f"{at}/assistant/versions/{version}/reports").json()["items"]
    assert report == bench.world.report(version).model_dump(mode="json")


def test_a_report_is_filed_under_its_own_version(bench: ControlWorld) -> None:
    one, two = bench.world.push(seed=1), bench.world.push(seed=2)
    at = "/tenants/bank_a/adapters/assistant/versions"
    envelope = bench.world.report(one).model_dump(mode="json")
    _refused(bench.call("POST", f"{at}/{two}/reports", "trainer", json=envelope), 422, "report_invalid")
    filed = bench.call("POST", f"{at}/{one}/reports", "trainer", json=envelope)
    assert filed.status_code == 201
    assert bench.call("POST", f"{at}/{one}/reports", "trainer", json=envelope).json() == filed.json()


def test_four_eyes_over_http(bench: ControlWorld) -> None:
    version = bench.world.evaluated()
    bench.call("PUT", "/tenants/bank_a/protections/live", json={"approvals": 1})
    at_once = bench.call("POST", f"{ALIAS}/promotions", json=_promotion(version) | {"propose": False})
    _refused(at_once, 409, "approval_required")
    asked = bench.call("POST", f"{ALIAS}/promotions", json=_promotion(version))
    assert asked.status_code == 202
    proposal = asked.json()["proposal"]["id"]
    approve = f"/tenants/bank_a/proposals/{proposal}/approve"
    _refused(bench.call("POST", approve), 403, "approval_refused")
    done = bench.call("POST", approve, "platform_admin")
    assert done.json()["state"] == "done"
    assert bench.call("GET", ALIAS).json()["version"] == version
    foreign = bench.call("POST", f"/tenants/retail_b/proposals/{proposal}/approve", tenant="retail_b")
    unknown = bench.call("POST", f"/tenants/retail_b/proposals/{'0' * 16}/approve", tenant="retail_b")
    _refused(foreign, 404, "proposal_not_found")
    assert foreign.text.replace(proposal, "…") == unknown.text.replace("0" * 16, "…")


def test_actors_in_the_log_are_who_did_it(bench: ControlWorld) -> None:
    bench.call("POST", AT, json={"role": "trainer"})
    newest = bench.world.catalog.entries(bench.world.catalog.position().size - 1)[0]
    key_id = bench.secret("tenant_admin").split("_")[1]
    assert newest.actor == f"key:{key_id}"
    assert bench.secret("tenant_admin") not in newest.model_dump_json()


def test_usage_by_version_and_by_day(bench: ControlWorld) -> None:
    versions = sorted([bench.world.push(seed=1), bench.world.push(seed=2)])
    lines = [
        {
            "tenant": "bank_a", "adapter": "assistant", "version": version, "day": day,
            "requests": number, "prompt_tokens": 10 * number, "completion_tokens": 0,
        }
        for number, (version, day) in enumerate(
            [(versions[0], "2026-01-01"), (versions[1], "2026-01-01"), (versions[1], "2026-01-02")], 1
        )
    ]  # fmt: skip
    batch = {"writer": "router-0", "seq": 0, "lines": lines}
    assert bench.call("POST", "/usage", "service", json=batch).json() == {"counted": True}
    assert bench.call("POST", "/usage", "service", json=batch).json() == {"counted": False}
    at = "/tenants/bank_a/usage?first_day=2026-01-01&last_day=2026-01-31"

    def sums(by: str) -> list[tuple[str | None, str | None, int]]:
        items = bench.call("GET", at + by).json()["items"]
        return [(item["day"], item["version"], item["requests"]) for item in items]

    assert sums("") == [
        ("2026-01-01", versions[0], 1),
        ("2026-01-01", versions[1], 2),
        ("2026-01-02", versions[1], 3),
    ]
    assert sums("&by=day") == [("2026-01-01", None, 3), ("2026-01-02", None, 3)]
    assert sums("&by=version") == [(None, versions[0], 1), (None, versions[1], 5)]
    page = bench.call("GET", at + "&limit=2").json()
    rest = bench.call("GET", f"{at}&limit=2&cursor={page['next']}").json()
    assert len(page["items"]) + len(rest["items"]) == 3


def test_a_tenant_is_changed_by_the_platform(bench: ControlWorld) -> None:
    def change(**body: Any) -> Any:
        return bench.call("PATCH", "/tenants/bank_a", "platform_admin", json=body)

    assert change(display_name="The Bank").json()["display_name"] == "The Bank"
    assert change(quota={"requests_per_minute": 5}).json()["quota"]["requests_per_minute"] == 5
    for wrong in ({}, {"suspended": True}, {"quota": {}, "suspended": False}, {"quota": {}, "reason": "x"}):
        _refused(change(**wrong), 400, "invalid_input")
    key = bench.headers("trainer")
    assert change(suspended=True, reason="unpaid").json()["suspended"]
    assert bench.client.get(PREFIX + "/whoami", headers=key).status_code == 401
    assert not change(suspended=False).json()["suspended"]
    assert bench.client.get(PREFIX + "/whoami", headers=key).status_code == 200


def test_a_tenant_is_compared_and_set(bench: ControlWorld) -> None:
    def change(seen: str, **body: Any) -> Any:
        headers = {"If-Match": seen}
        return bench.call("PATCH", "/tenants/bank_a", "platform_admin", json=body, headers=headers)

    first = bench.call("GET", "/tenants/bank_a").headers["etag"]
    changed = change(first, display_name="The Bank")
    assert changed.headers["etag"] == bench.call("GET", "/tenants/bank_a").headers["etag"] != first
    for body in (
        {"display_name": "Another"},
        {"quota": {"requests_per_minute": 1}},
        {"suspended": True, "reason": "late"},
        {"suspended": False},
    ):
        _refused(change(first, **body), 409, "tenant_changed")
    assert bench.call("GET", "/tenants/bank_a").json() == changed.json()
    for wrong in ('"1"', "*", first.strip('"'), f"W/{first}", first.upper()):
        _refused(change(wrong, suspended=False), 400, "invalid_precondition")


def test_latencies_have_labels_that_nobody_can_invent(bench: ControlWorld) -> None:
    bench.call("GET", "/whoami")
    bench.call("GET", "/tenants/retail_b/keys")
    for path in ("/made/up", "/also/made/up"):
        bench.client.request("BREW", path)
    shown = bench.client.get("/metrics").text
    assert 'method="GET",route="/api/v1/whoami",status="2xx"' in shown
    assert 'route="/api/v1/tenants/{tenant}/keys",status="4xx"' in shown
    assert 'method="other",route="unmatched",status="4xx"' in shown
    assert "retail_b" not in shown
    assert "made" not in shown
