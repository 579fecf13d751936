"""Tokens of an identity provider: the good ones, and every forgery we could think of."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from registry.clock import ManualClock
from registry.errors import InvalidDocument, KeyRefused
from registry.identity.keysets import parse
from registry.models import Role
from server.api.jwks import WAITING, KeySet, fetch_file, fetch_url
from server.api.oidc import Oidc
from server.errors import IdentityProviderUnreachable, SettingsInvalid
from tests.support.identity_provider import AUDIENCE, ISSUER, Provider, jwk, private_key, provider


@dataclass
class Bench:
    clock: ManualClock
    provider: Provider
    now: float = 1000.0
    keys: KeySet = field(init=False)
    oidc: Oidc = field(init=False)

    def __post_init__(self) -> None:
        self.keys = KeySet(fetch_url(self.provider.url + "/jwks"), seconds=lambda: self.now)
        self.oidc = Oidc(ISSUER, AUDIENCE, self.keys, self.clock)

    def refuses(self, token: str) -> None:
        with pytest.raises(KeyRefused) as refused:
            self.oidc.verify(token)
        assert refused.value.message == "the credential was not accepted"


@pytest.fixture
def bench() -> Iterator[Bench]:
    clock = ManualClock()
    with provider(clock) as made:
        yield Bench(clock, made)


def _forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@pytest.mark.parametrize("kid", ["rsa-1", "ec-1", "ed-1"])
def test_each_kind_of_key_verifies(bench: Bench, kid: str) -> None:
    bench.provider.keys = [jwk("rsa-1"), jwk("ec-1"), jwk("ed-1")]
    claimed = bench.oidc.verify(bench.provider.token(kid))
    assert (claimed.actor, claimed.role, claimed.tenant) == (
        "oidc:login.example.com/ada",
        Role.TENANT_ADMIN,
        "bank_a",
    )


def test_roles_and_tenants(bench: Bench) -> None:
    token = bench.provider.token
    admin = bench.oidc.verify(token(tenon_role="platform_admin", tenon_tenant=None))
    assert (admin.role, admin.tenant) == (Role.PLATFORM_ADMIN, None)
    listed = bench.oidc.verify(token(tenon_role=["offline_access", "trainer"]))
    assert (listed.role, listed.tenant) == (Role.TRAINER, "bank_a")
    for wrong in (
        {"tenon_role": None},
        {"tenon_role": "service"},
        {"tenon_role": "owner"},
        {"tenon_role": ["trainer", "tenant_admin"]},
        {"tenon_role": {"trainer": True}},
        {"tenon_tenant": None},
        {"tenon_tenant": ""},
        {"tenon_tenant": ["bank_a", "retail_b"]},
        {"tenon_role": "platform_admin"},
    ):
        bench.refuses(token(**wrong))


def test_claim_names_are_configurable(bench: Bench) -> None:
    named = Oidc(ISSUER, AUDIENCE, bench.keys, bench.clock, "https://x.example/role", "org")
    token = bench.provider.token(**{"https://x.example/role": "trainer", "org": "retail_b"})
    assert named.verify(token).tenant == "retail_b"
    assert bench.oidc.verify(token).tenant == "bank_a"


def test_no_token_chooses_its_algorithm(bench: Bench) -> None:
    """`none`, and HS256 keyed with what everybody can read, the public key (RFC 8725, 2.1)."""
    bench.provider.keys = [jwk("rsa-1"), jwk("ed-1")]
    claims = bench.provider.claims()
    for alg in ("none", "None", "NONE", ""):
        bench.refuses(_forged({"alg": alg, "kid": "rsa-1"}, claims))
    public = private_key("rsa-1").public_key()
    spellings = [
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk("rsa-1")).encode(),
        b"",
    ]
    for secret in spellings:
        for alg, name in (("HS256", "sha256"), ("HS512", "sha512")):
            unsigned = _forged({"alg": alg, "kid": "rsa-1"}, claims).rstrip(".")
            signature = hmac.new(secret, unsigned.encode(), getattr(hashlib, name)).digest()
            bench.refuses(f"{unsigned}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}")
    # A right signature under an algorithm that this key is not for.
    bench.refuses(jwt.encode(claims, private_key("rsa-1"), algorithm="RS512", headers={"kid": "rsa-1"}))
    bench.refuses(jwt.encode(claims, private_key("rsa-1"), algorithm="PS256", headers={"kid": "rsa-1"}))
    bench.refuses(bench.provider.token("rsa-1", named="ed-1"))


def test_keys_inside_a_token_are_not_looked_at(bench: Bench) -> None:
    forger = jwk("ed-forger")
    for header in ({"jwk": forger}, {"jku": bench.provider.url}, {"x5u": bench.provider.url}):
        bench.refuses(
            jwt.encode(
                bench.provider.claims(),
                private_key("ed-forger"),
                algorithm="EdDSA",
                headers={"kid": "ed-1", **header},
            )
        )


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://login.example.com/realms/other"},
        {"iss": ISSUER + "/"},
        {"iss": None},
        {"aud": "another-service"},
        {"aud": []},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "ada\nkey:0000000000000000"},
        {"sub": "a" * 256},
        {"exp": None},
        {"iat": None},
        {"exp": True},
        {"exp": "tomorrow"},
        {"exp": 1e300},
        {"nbf": "today"},
    ],
)
def test_wrong_claims(bench: Bench, changed: dict[str, Any]) -> None:
    bench.oidc.verify(bench.provider.token())
    bench.refuses(bench.provider.token(**changed))


def test_several_audiences_are_as_good_as_one(bench: Bench) -> None:
    bench.oidc.verify(bench.provider.token(aud=["another-service", AUDIENCE]))


def test_times_count_with_thirty_seconds_of_leeway(bench: Bench) -> None:
    now = int(bench.clock.now().timestamp())
    bench.oidc.verify(bench.provider.token(exp=now - 29))
    bench.refuses(bench.provider.token(exp=now - 30))
    bench.oidc.verify(bench.provider.token(nbf=now + 30))
    bench.refuses(bench.provider.token(nbf=now + 31))
    bench.refuses(bench.provider.token(iat=now + 31))
    token = bench.provider.token()
    bench.clock.advance(629)
    bench.oidc.verify(token)
    bench.clock.advance(1)
    bench.refuses(token)


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.b.c", "....", "\ud800.b.c", "ey" * 5000, "é.é.é"])
def test_what_is_no_token_at_all(bench: Bench, token: str) -> None:
    bench.refuses(token)


def test_deep_claims_are_no_crash(bench: Bench) -> None:
    bench.provider.claims()
    header = base64.urlsafe_b64encode(b'{"alg":"EdDSA","kid":"ed-1","x":' + b"[" * 2000).decode().rstrip("=")
    bench.refuses(f"{header}.e30.e30")


def test_a_rotated_key_is_found_at_once_and_made_up_ones_ask_twice_a_minute_at_most(bench: Bench) -> None:
    bench.oidc.verify(bench.provider.token())
    bench.provider.keys.append(jwk("ed-2"))
    bench.now += 30
    bench.oidc.verify(bench.provider.token("ed-2"))
    assert bench.provider.asked == 2
    for number in range(50):
        bench.refuses(bench.provider.token(named=f"made-up-{number}"))
    assert bench.provider.asked == 2
    bench.now += 30
    bench.refuses(bench.provider.token(named="made-up"))
    assert bench.provider.asked == 3


def test_a_withdrawn_key_ends_within_five_minutes(bench: Bench) -> None:
    token = bench.provider.token()
    bench.oidc.verify(token)
    bench.provider.keys = [jwk("ed-2")]
    bench.now += 299
    bench.oidc.verify(token)
    bench.now += 1
    bench.refuses(token)


@pytest.mark.parametrize("fault", ["status", "redirect", "no json", "too large", "same id twice"])
def test_known_keys_survive_a_provider_that_fails_for_an_hour(bench: Bench, fault: str) -> None:
    bench.oidc.verify(bench.provider.token())
    if fault == "status":
        bench.provider.status = 500
    elif fault == "redirect":
        bench.provider.status = 302
    elif fault == "no json":
        bench.provider.body = b"<html>"
    elif fault == "too large":
        bench.provider.body = b'{"keys": [' + b" " * 300_000 + b"]}"
    else:
        bench.provider.keys = [jwk("ed-1"), jwk("ed-2") | {"kid": "ed-1"}]
    bench.now += 3599
    bench.oidc.verify(bench.provider.token())
    assert bench.provider.asked == 2
    bench.now += 1
    with pytest.raises(IdentityProviderUnreachable):
        bench.oidc.verify(bench.provider.token())


def test_a_provider_that_never_answered(bench: Bench) -> None:
    bench.provider.status = 503
    for _ in range(3):
        with pytest.raises(IdentityProviderUnreachable):
            bench.oidc.verify(bench.provider.token())
    assert bench.provider.asked == 1


def test_an_answer_that_never_ends_is_given_up_as_a_whole(bench: Bench) -> None:
    """It comes byte by byte, so that no single read is slow."""
    bench.provider.dripping = True
    with pytest.raises((TimeoutError, httpx.HTTPError)):
        fetch_url(bench.provider.url, patience=0.3)()


def test_a_provider_that_hangs_holds_four_requests_and_no_other() -> None:
    """Tokens with made-up keys from everywhere: known keys go on, and nobody waits for a turn."""
    asked, answer = threading.Semaphore(0), threading.Event()
    answers = iter([True])

    def fetch() -> bytes:
        if next(answers, False):
            return json.dumps({"keys": [jwk("ed-1")]}).encode()
        asked.release()
        answer.wait()
        return json.dumps({"keys": [jwk("ed-1"), jwk("ed-2")]}).encode()

    now = 1000.0
    keys = KeySet(fetch, seconds=lambda: now, patience=60)
    assert keys.find("ed-1") is not None
    now += 31
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(keys.find, f"made-up-{number}") for number in range(40)]
        done = list(islice(as_completed(waiting, timeout=60), 40 - WAITING))
        held = set(waiting) - set(done)
        assert [one.result() for one in done] == [None] * len(done)
        assert keys.find("ed-1") is not None
        assert keys.find("ed-2") is None
        now += 300  # no longer fresh, and the question of before is still open
        assert keys.find("ed-1") is not None
        answer.set()
        assert [one.result(60) for one in held] == [None] * WAITING
    assert asked.acquire(blocking=False)
    assert not asked.acquire(blocking=False)


def test_whoever_waits_gives_up_in_time() -> None:
    answer = threading.Event()

    def fetch() -> bytes:
        answer.wait()
        return b""

    keys = KeySet(fetch, patience=0.05)
    try:
        with pytest.raises(IdentityProviderUnreachable):
            keys.find("ed-1")
    finally:
        answer.set()


def test_only_keys_that_may_sign_are_taken() -> None:
    secret = {
        "kty": "oct",
        "kid": "shared",
        "k": base64.urlsafe_b64encode(b"x" * 32).decode(),
        "alg": "HS256",
    }
    listed = [
        secret,
        jwk("rsa-short"),
        jwk("rsa-1") | {"use": "enc", "kid": "enc"},
        jwk("rsa-1") | {"alg": "RS512", "kid": "other algorithm"},
        jwk("ec-1") | {"crv": "P-521", "kid": "other curve"},
        jwk("ec-1") | {"x": "AAAA", "kid": "not on the curve"},
        {key: value for key, value in jwk("ed-1").items() if key != "kid"},
        {"kty": ["RSA"], "kid": "list"},
        {"kty": "RSA", "kid": "empty"},
        "no object",
        jwk("ed-1"),
    ]
    assert set(parse(json.dumps({"keys": listed}).encode())) == {"ed-1"}
    for wrong in (b"[]", b'{"keys": {}}', b"{}"):
        with pytest.raises(InvalidDocument):
            parse(wrong)


def test_keys_in_a_file_and_where_a_url_may_lead(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = KeySet(fetch_file(file))
    with pytest.raises(IdentityProviderUnreachable):
        keys.find("ed-1")
    file.write_text(json.dumps({"keys": [jwk("ed-1")]}))
    assert KeySet(fetch_file(file)).find("ed-1") is not None
    for url in ("http://login.example.com/jwks", "file:///etc/passwd", "ftp://127.0.0.1/jwks", "jwks"):
        with pytest.raises(SettingsInvalid):
            fetch_url(url)
