"""What a router's settings become."""

from pathlib import Path
from typing import Any

import pytest

from registry.signing.keys import Signer
from router import serving
from router.errors import InvalidRequest
from router.limits import Limits
from router.surfaces.chat.surface import Chat
from server.assembly import listen, logs, router
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


def test_how_long_connections_may_idle(monkeypatch: pytest.MonkeyPatch, required: dict[str, Any]) -> None:
    assert served(monkeypatch, required)["keep_alive"] == 75
    assert served(monkeypatch, required | {"keep_alive": 20})["keep_alive"] == 20


def test_the_listener_takes_it(
    monkeypatch: pytest.MonkeyPatch, required: dict[str, Any], tmp_path: Path
) -> None:
    found: list[int] = []

    def run(self: serving.Server) -> None:
        found.append(self.config.timeout_keep_alive)
        self.started = True

    monkeypatch.setattr(serving.Server, "run", run)
    monkeypatch.setattr(logs, "start", lambda *_: None)
    router.serve(load(RouterSettings, required | {"keep_alive": 20}))
    assert found == [20]


def test_the_largest_n(monkeypatch: pytest.MonkeyPatch, required: dict[str, Any]) -> None:
    for more, most in (({}, 8), ({"choices": 20}, 20)):
        limits: Limits = served(monkeypatch, required | more)["limits"]
        body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":%d}'
        assert Chat().parse(body % most, limits).choices == most
        with pytest.raises(InvalidRequest, match=f"at most {most}$"):
            Chat().parse(body % (most + 1), limits)
