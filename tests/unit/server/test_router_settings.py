"""What a router's settings become."""

from pathlib import Path
from typing import Any

import pytest

from registry.signing.keys import Signer
from router.errors import InvalidRequest
from router.limits import Limits
from router.surfaces.chat.surface import Chat
from server.assembly import listen, router
from server.settings import RouterSettings, load


@pytest.fixture
def required(tmp_path: Path) -> dict[str, Any]:
    for name in ("token", "salt"):
        (tmp_path / name).write_text("a secret of some length " * 2)
    Signer.generate("router").save(tmp_path / "key")
    return {
        "control_url": "http://127.0.0.1:1",
        "service_token_file": tmp_path / "token",
        "router_key_file": tmp_path / "key",
        "salt_file": tmp_path / "salt",
        "records_dir": tmp_path / "records",
    }


def served(monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]) -> dict[str, Any]:
    """All that the application is made of, and how it is listened for."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(router, "create_app", lambda **parts: found.update(parts))
    monkeypatch.setattr(listen, "serve", lambda _, **how: found.update(how))
    router.serve(load(RouterSettings, settings))
    return found


def test_the_largest_n(monkeypatch: pytest.MonkeyPatch, required: dict[str, Any]) -> None:
    for more, most in (({}, 8), ({"choices": 20}, 20)):
        limits: Limits = served(monkeypatch, required | more)["limits"]
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":%d}'
        assert Chat().parse(body % most, limits).choices == most
        with pytest.raises(InvalidRequest, match=f"at most {most}$"):
            Chat().parse(body % (most + 1), limits)
