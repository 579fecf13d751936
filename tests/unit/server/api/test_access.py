"""Who may do what: every endpoint by every role, and the one answer for what is not the caller's."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from itertools import islice
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from registry.models import Role
from server.api.access import public, requires, requires_of_tenant
from server.api.app import PREFIX, create_app
from server.api.caller import Who
from server.api.guarded import Guarded, router
from server.api.jwks import WAITING, KeySet, fetch_url
from server.api.oidc import Oidc
from tests.support.control import ROLES, ControlWorld, with_oidc
from tests.support.identity_provider import AUDIENCE, ISSUER, Provider, jwk, provider
from tests.support.remote import serving

OPEN = {"/healthz", "/readyz", "/metrics"}


def _endpoints(bench: ControlWorld) -> list[tuple[str, str, frozenset[str], bool]]:
    """(method, path with made-up parameters, roles, of a tenant)."""
    app: Any = bench.client.app
    found = []
    for route in app.routes:
        if isinstance(route, Guarded) and route.requirement.who:
            path = re.sub(r"{tenant}", "bank_a", route.path_format.removeprefix(PREFIX))
            path = re.sub(r"{(version|digest)}", "sha256:" + "0" * 64, path)
            roles = frozenset(who.value for who in route.requirement.who)
            found += [
                (method, re.sub(r"{\w+}", "x", path), roles, route.requirement.tenant)
                for method in sorted(route.methods - {"HEAD"})  # its problems have no body to look at
            ]
    return found


def test_every_endpoint_declares_who_may_use_it(shared: ControlWorld) -> None:
    app: Any = shared.client.app
    assert {route.path for route in app.routes if not isinstance(route, Guarded)} == OPEN
    guarded = [route for route in app.routes if isinstance(route, Guarded)]
    assert [route.path for route in guarded if not route.requirement.who] == [f"{PREFIX}/openapi.json"]
    for route in guarded:
        assert route.requirement.tenant == ("{tenant}" in route.path)
    assert len(guarded) > 50


def test_an_endpoint_that_declares_nothing_cannot_be_built(shared: ControlWorld) -> None:
    silent = router()
    with pytest.raises(TypeError, match="who may use it"):
        silent.get("/x")(lambda: None)
    with pytest.raises(TypeError, match="of which tenant"):
        silent.get("/tenants/{tenant}/x", dependencies=[requires(shared.control, {Who.SERVICE})])(
            lambda: None
        )
    with pytest.raises(TypeError, match="of which tenant"):
        silent.get("/x", dependencies=[requires_of_tenant(shared.control, {Who.SERVICE})])(lambda: None)
    with pytest.raises(TypeError, match="once"):
        silent.get("/x", dependencies=[requires(shared.control, {Who.SERVICE}), public(shared.control)])(
            lambda: None
        )
    with pytest.raises(TypeError, match="name the roles"):
        requires(shared.control, set())


def test_an_app_with_an_unguarded_router_does_not_start(
    bench: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = APIRouter()
    bare.get("/open")(lambda: None)
    monkeypatch.setattr("server.api.whoami.routes", lambda _: bare)
    with pytest.raises(TypeError, match="use guarded"):
        create_app(bench.control)
    assert all(type(route) is APIRoute for route in bare.routes)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_reaches_what_is_declared_for_it_and_nothing_else(shared: ControlWorld, role: str) -> None:
    """The refusal comes before the body, the query or a name in the path is looked at."""
    for method, path, roles, _ in _endpoints(shared):
        answer = shared.call(method, path, role)
        code = answer.json().get("code") if answer.status_code >= 400 else None
        if role == "nobody":
            assert (answer.status_code, code) == (401, "key_refused"), path
        elif role in roles:
            assert code not in ("role_not_permitted", "key_refused", "tenant_not_found"), (method, path)
            assert answer.status_code < 500, (method, path)
        else:
            assert (answer.status_code, code) == (403, "role_not_permitted"), (method, path)


def test_what_each_role_is_for(shared: ControlWorld) -> None:
    reach: dict[str, set[str]] = {role: set() for role in ROLES}
    for method, path, roles, _ in _endpoints(shared):
        for role in roles:
            reach[role].add(f"{method} {path}")
    assert reach["inference"] == {"GET /whoami"}
    written = {call for call in reach["trainer"] if not call.startswith(("GET ", "HEAD "))}
    assert all("/blobs" in call or "/uploads" in call or "/versions" in call for call in written), written
    assert not any("revoke" in call for call in written)
    assert not {call for call in reach["tenant_admin"] if re.search(r" /(keys|tenants|usage)$", call)}
    assert not {
        call for call in reach["tenant_admin"] if re.match(r"(POST|DELETE|PUT) /(signers|bases)", call)
    }
    assert "PATCH /tenants/bank_a" not in reach["tenant_admin"]
    assert not any("/tenants/" in call for call in reach["service"])
    assert reach["tenant_admin"] < reach["platform_admin"]


@pytest.mark.parametrize("role", ["tenant_admin", "trainer", "inference"])
def test_another_tenant_is_as_unknown_as_none(shared: ControlWorld, role: str) -> None:
    """Same status, same body but for the name that was asked for, and for every endpoint."""
    for method, path, _, of_tenant in _endpoints(shared):
        if not of_tenant:
            continue
        answers = {}
        for asked in ("retail_b", "nobody_x"):
            answer = shared.call(method, path.replace("bank_a", asked), role, content=b"{not json")
            assert answer.status_code == 404, (method, path)
            answers[asked] = (answer.text.replace(asked, "…"), sorted(answer.headers))
        assert answers["retail_b"] == answers["nobody_x"]
        assert '"code":"tenant_not_found"' in answers["retail_b"][0]


def test_a_platform_admin_learns_what_does_not_exist(shared: ControlWorld) -> None:
    answer = shared.call("GET", "/tenants/nobody_x/adapters", "platform_admin")
    assert (answer.status_code, answer.json()["code"]) == (404, "tenant_not_found")


def test_all_bad_credentials_are_one_answer(bench: ControlWorld) -> None:
    good = bench.secret("trainer")
    key, revoked = bench.world.catalog.issue_key("bank_a", role=Role.TRAINER, actor="test")
    bench.world.catalog.revoke_key(key.id, actor="test")
    _, suspended = bench.world.catalog.issue_key("retail_b", role=Role.TRAINER, actor="test")
    bench.world.catalog.suspend_tenant("retail_b", reason="unpaid", actor="test")
    tries = [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {good}",
        good,
        f"Bearer {good[:-1]}",
        f"Bearer {good}x",
        f"Bearer tn_{'0' * 16}_{'A' * 43}",
        f"Bearer {revoked}",
        f"Bearer {suspended}",
        f"Bearer {bench.secret('service')}x",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
    ]
    answers = set()
    for credential in tries:
        headers = {} if credential is None else {"Authorization": credential}
        answer = bench.client.get(PREFIX + "/whoami", headers=headers)
        answers.add((answer.status_code, answer.text, answer.headers["www-authenticate"]))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 401
    assert bench.call("GET", "/whoami", "trainer").status_code == 200


def test_whoami(shared: ControlWorld) -> None:
    key_id = shared.secret("trainer").split("_")[1]
    assert shared.call("GET", "/whoami", "trainer").json() == {
        "actor": f"key:{key_id}",
        "tenant": "bank_a",
        "role": "trainer",
    }
    assert shared.call("GET", "/whoami", "service").json() == {
        "actor": "service",
        "tenant": None,
        "role": "service",
    }


def test_a_revoked_or_expired_key_ends_with_the_next_request(bench: ControlWorld) -> None:
    made = bench.call("POST", "/tenants/bank_a/keys", json={"role": "trainer"}).json()
    mine = {"Authorization": f"Bearer {made['secret']}"}
    assert bench.client.get(PREFIX + "/whoami", headers=mine).status_code == 200
    assert bench.call("DELETE", f"/tenants/bank_a/keys/{made['key']['id']}").status_code == 204
    assert bench.client.get(PREFIX + "/whoami", headers=mine).status_code == 401

    old = bench.call("POST", "/tenants/bank_a/keys", json={"role": "trainer"}).json()
    at = f"/tenants/bank_a/keys/{old['key']['id']}/rotate"
    new = bench.call("POST", at, json={"overlap_seconds": 60}).json()
    both = [{"Authorization": f"Bearer {each['secret']}"} for each in (old, new)]
    assert [bench.client.get(PREFIX + "/whoami", headers=one).status_code for one in both] == [200, 200]
    bench.clock.advance(60)
    assert [bench.client.get(PREFIX + "/whoami", headers=one).status_code for one in both] == [401, 200]


def test_people_of_an_identity_provider(bench: ControlWorld) -> None:
    with provider(bench.clock) as made:
        client = with_oidc(bench, Oidc(ISSUER, AUDIENCE, KeySet(fetch_url(made.url)), bench.clock))

        def get(path: str, **claims: Any) -> Any:
            return client.get(PREFIX + path, headers={"Authorization": f"Bearer {made.token(**claims)}"})

        assert get("/whoami").json() == {
            "actor": "oidc:login.example.com/ada",
            "tenant": "bank_a",
            "role": "tenant_admin",
        }
        assert get("/tenants/bank_a/keys").status_code == 200
        assert get("/tenants/retail_b/keys").json()["code"] == "tenant_not_found"
        # A tenant that does not exist, or is suspended, opens nothing; nobody learns why.
        assert get("/whoami", tenon_tenant="nobody_x").json()["code"] == "key_refused"
        bench.world.catalog.suspend_tenant("bank_a", reason="unpaid", actor="test")
        assert get("/whoami").json()["code"] == "key_refused"
        assert get("/whoami", tenon_role="platform_admin", tenon_tenant=None).status_code == 200
        # Keys still work beside it, and the provider that went away is a 503 of its own.
        assert client.get(PREFIX + "/whoami", headers=bench.headers("platform_admin")).status_code == 200
        made.status = 500
        fresh = with_oidc(bench, Oidc(ISSUER, AUDIENCE, KeySet(fetch_url(made.url)), bench.clock))
        answer = fresh.get(PREFIX + "/whoami", headers={"Authorization": f"Bearer {made.token()}"})
        assert (answer.status_code, answer.json()["code"]) == (503, "identity_provider_unreachable")


def test_a_provider_that_hangs_stops_nobody_with_a_key(bench: ControlWorld) -> None:
    """45 tokens with made-up keys are more than there are threads for all requests together (40)."""
    answer = threading.Event()
    first = iter([json.dumps({"keys": [jwk("ed-1")]}).encode()])

    def fetch() -> bytes:
        found = next(first, b"")
        return found if found or answer.wait() else b""

    now = 1000.0
    keys = KeySet(fetch, seconds=lambda: now, patience=60)
    assert keys.find("ed-1") is not None
    now += 31
    token = Provider(bench.clock).token
    strange = [{"Authorization": f"Bearer {token(named=f'made-up-{number}')}"} for number in range(45)]
    app = create_app(replace(bench.control, oidc=Oidc(ISSUER, AUDIENCE, keys, bench.clock)))
    with serving(app) as url, ThreadPoolExecutor(45) as pool:
        try:
            asked = [
                pool.submit(httpx.get, f"{url}{PREFIX}/whoami", headers=headers, timeout=60)
                for headers in strange
            ]
            for one in islice(as_completed(asked, timeout=60), 45 - WAITING):
                assert one.result().status_code == 401
            known = {"Authorization": f"Bearer {token()}"}
            for path, headers in (
                (f"{PREFIX}/whoami", bench.headers("trainer")),
                (f"{PREFIX}/whoami", known),
                ("/readyz", {}),
            ):
                assert httpx.get(url + path, headers=headers, timeout=20).status_code == 200
        finally:
            answer.set()
        assert {one.result(60).status_code for one in asked} == {401}


def test_nobody_of_a_tenant_takes_protection_away(bench: ControlWorld) -> None:
    at = "/tenants/bank_a/protections/live"
    assert bench.call("PUT", at, json={"approvals": 1}).status_code == 200
    assert bench.call("PUT", at, json={"approvals": 0}).json()["code"] == "protection_weakened"
    with provider(bench.clock) as made:
        client = with_oidc(bench, Oidc(ISSUER, AUDIENCE, KeySet(fetch_url(made.url)), bench.clock))
        headers = {"Authorization": f"Bearer {made.token()}"}
        answer = client.put(PREFIX + at, json={"approvals": 0}, headers=headers)
        assert answer.json()["code"] == "protection_weakened"
        headers = {"Authorization": f"Bearer {made.token(tenon_role='platform_admin', tenon_tenant=None)}"}
        assert client.put(PREFIX + at, json={"approvals": 0}, headers=headers).status_code == 200
