"""What `tenon up` waits for, and what it says meanwhile."""

import json

import pytest

from registry.digests import Digest
from server.assembly import stack
from server.assembly.processes import Process
from server.errors import StartFailed

VERSION = Digest.of(b"version")
WHY = "attestation_failed: it answers as nobody"


def answering(monkeypatch: pytest.MonkeyPatch, **said: object) -> None:
    body = json.dumps({"doing": "serving", "waits_for": "", "not_ready": {VERSION: WHY}, **said}).encode()
    monkeypatch.setattr(stack, "answer_of", lambda _: (503, body))
    monkeypatch.setitem(stack._START_LIMITS, "engine", -1.0)


def test_an_engine_that_serves_all_but_some_versions_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, up=True)
    shown: list[str] = []
    stack._await_ready(Process.own("engine-0"), lambda _, doing: shown.append(doing))
    missing = f"serving, not in service: {VERSION.short}: {WHY}"
    assert shown == ["starting", missing, f"up without some of its versions: {missing}"]


@pytest.mark.parametrize(
    "said", [{}, {"up": False}, {"up": True, "not_ready": {}}], ids=["no engine", "not up", "not settled"]
)
def test_one_that_has_not_come_so_far_does(monkeypatch: pytest.MonkeyPatch, said: dict[str, object]) -> None:
    answering(monkeypatch, **said)
    with pytest.raises(StartFailed, match="not ready in time"):
        stack._await_ready(Process.own("engine-0", log="/dev/null"), lambda *_: None)
