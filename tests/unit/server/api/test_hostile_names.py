"""Names that mean something else elsewhere, at every place of the API where a name is given."""

from urllib.parse import quote

import pytest

from registry.digests import Digest
from tests.support.control import ControlWorld

NAMES = [
    "..",
    ".",
    "../retail_b",
    "/etc/passwd",
    ".hidden",
    "-rf",
    "_x",
    "a" * 64,
    "a" * 129,
    "a" * 5000,
    "a\x00b",
    "a\n",
    "a\r\nX: y",
    "a b",
    "A",
    "bänk",
    "bank\u200b_a",
    "\uff42\uff41nk_a",  # full-width b and a
    "b\u0430nk_a",  # a Cyrillic a
    "bank_a%00",
    "%2e%2e",
    "..%2fretail_b",
    "bank_a/../retail_b",
    "bank_a;x",
    "bank_a?x",
    "'; drop table tenants; --",
    "${jndi:ldap://x}",
    "con:",
    "²",
]
PLACES = [
    ("GET", "/tenants/{}"),
    ("GET", "/tenants/{}/adapters"),
    ("GET", "/tenants/{}/routing"),
    ("GET", "/tenants/bank_a/adapters/{}"),
    ("GET", "/tenants/bank_a/adapters/{}/aliases/live"),
    ("GET", "/tenants/bank_a/adapters/assistant/aliases/{}"),
    ("GET", "/tenants/bank_a/adapters/assistant/versions/{}"),
    ("GET", "/tenants/bank_a/policies/{}"),
    ("GET", "/tenants/bank_a/blobs/{}"),
    ("DELETE", "/tenants/bank_a/keys/{}"),
]


@pytest.fixture
def settled(bench: ControlWorld) -> ControlWorld:
    bench.world.promoted()
    return bench


def _spelled(name: str) -> str:
    """Dots too: a client would take ``..`` for itself."""
    return quote(name, safe="").replace(".", "%2E")


def test_as_parts_of_a_path(settled: ControlWorld) -> None:
    size = settled.world.catalog.snapshot().size
    settled.secret("platform_admin")
    settled.secret("tenant_admin")
    for role in ("platform_admin", "tenant_admin"):
        for method, place in PLACES:
            for name in NAMES:
                answer = settled.call(method, place.format(_spelled(name)), role)
                told = (role, method, place, name[:40], answer.status_code)
                assert 400 <= answer.status_code < 500, told
                assert "retail" not in answer.text.replace(name, ""), told
                assert "/tmp" not in answer.text, told
    assert settled.world.catalog.snapshot().size == size + 2  # the two keys


def test_as_fields_of_a_body(settled: ControlWorld) -> None:
    policy = settled.world.policy()
    settled.secret("platform_admin")
    size = settled.world.catalog.snapshot().size
    rule = {"tenant": "bank_a", "name": "r", "model": "m", "adapter": "assistant", "policy": policy}
    blob = Digest.of(b"x")
    for name in NAMES:
        bodies: list[tuple[str, str, object]] = [
            ("POST", "/tenants", {"id": name, "display_name": "x"}),
            ("POST", "/tenants/bank_a/adapters/assistant/versions", {
                "base": settled.world.base, "files": {name: blob}, "fingerprint": None,
                "provenance": {"method": "upload"},
            }),
            ("POST", "/tenants/bank_a/policies", {"tenant": "bank_a", "name": name}),
            *(
                ("PUT", "/tenants/bank_a/routing", {"routes": [{**rule, field: name}], "headers": None})
                for field in ("tenant", "name", "model", "adapter", "alias")
            ),
        ]  # fmt: skip
        for method, path, body in bodies:
            answer = settled.call(method, path, "platform_admin", json=body)
            assert 400 <= answer.status_code < 500, (method, path, name[:40], answer.status_code)
            assert answer.headers["content-type"].startswith("application/problem+json")
    assert settled.world.catalog.snapshot().size == size
