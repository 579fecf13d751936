"""The identity provider from settings: all of it or none."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from registry.clock import ManualClock
from registry.errors import KeyRefused
from server.assembly.identity import open_oidc, open_tokens
from server.errors import SettingsInvalid
from server.settings import ControlSettings, RouterSettings, load
from tests.support.identity_provider import AUDIENCE, ISSUER, Provider, jwk


def _settings(folder: Path, **oidc: Any) -> ControlSettings:
    given = {f"oidc_{name}": value for name, value in oidc.items()}
    return load(ControlSettings, {"workspace": folder, "service_token_file": folder / "token"} | given)


def test_a_provider_by_a_file_of_keys(tmp_path: Path) -> None:
    clock = ManualClock()
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [jwk("ed-1")]}))
    named = {"role_claim": "role", "tenant_claim": "org"}
    oidc = open_oidc(_settings(tmp_path, issuer=ISSUER, audience=AUDIENCE, jwks_file=keys, **named), clock)
    assert oidc is not None
    assert oidc.verify(Provider(clock).token(role="trainer", org="bank_a")).tenant == "bank_a"
    with pytest.raises(KeyRefused):
        oidc.verify(Provider(clock).token())


def test_none_without_settings(tmp_path: Path) -> None:
    assert open_oidc(_settings(tmp_path), ManualClock()) is None


@pytest.mark.parametrize(
    "oidc",
    [
        {"issuer": ISSUER},
        {"issuer": ISSUER, "audience": AUDIENCE},
        {"audience": AUDIENCE, "jwks_url": "https://login.example.com/jwks"},
        {"issuer": ISSUER, "jwks_file": "keys.json"},
        {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": "https://x.example/", "jwks_file": "keys.json"},
        {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": "http://login.example.com/jwks"},
        {"issuer": "login.example.com", "audience": AUDIENCE, "jwks_file": "keys.json"},
        {"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": "k", "role_claim": "x", "tenant_claim": "x"},
    ],
)
def test_half_of_it_does_not_start(tmp_path: Path, oidc: dict[str, Any]) -> None:
    with pytest.raises(SettingsInvalid):
        open_oidc(_settings(tmp_path, **oidc), ManualClock())


async def test_a_router_takes_the_tokens_of_the_same_provider(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [jwk("ed-1")]}))
    paths = ("service_token_file", "router_key_file", "salt_file", "records_dir")
    given: dict[str, Any] = {name: tmp_path / name for name in paths} | {"control_url": "http://control"}
    assert open_tokens(load(RouterSettings, given)) is None
    given |= {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE}
    with pytest.raises(SettingsInvalid):
        open_tokens(load(RouterSettings, given))
    tokens = open_tokens(load(RouterSettings, given | {"oidc_jwks_file": keys}))
    assert tokens is not None
    await tokens.start()
    clock = ManualClock()
    token = Provider(clock).token(tenon_role="inference")
    async with asyncio.timeout(10):
        while tokens._heard is None:  # noqa: ASYNC110 (it has no event of its own)
            await asyncio.sleep(0.001)
    principal = tokens.find(token, clock.now().timestamp()).principal
    assert principal is not None
    assert principal.tenant == "bank_a"
    await tokens.stop()
