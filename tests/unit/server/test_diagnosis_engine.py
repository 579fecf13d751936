"""What ``tenon doctor`` says of vLLM."""

import pytest

from server.assembly import diagnosis


def _found(monkeypatch: pytest.MonkeyPatch, version: str | None, device: str) -> dict[str, bool]:
    monkeypatch.setattr(diagnosis, "_version", lambda package: version if package == "vllm" else None)
    monkeypatch.setattr("server.assembly.machine.device", lambda: device)
    return {finding.check: finding.ok for finding in diagnosis._engine()}


def test_a_certified_release_with_its_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _found(monkeypatch, "0.32.0", "cpu")
    assert found == {"vLLM": True, "vLLM's release": True, "guard inside vLLM": True}


@pytest.mark.parametrize(("version", "device"), [("0.33.0", "cpu"), ("0.32.0", "cuda")])
def test_a_release_that_the_suite_has_not_seen(
    monkeypatch: pytest.MonkeyPatch, version: str, device: str
) -> None:
    assert not _found(monkeypatch, version, device)["vLLM's release"]


def test_no_vllm_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _found(monkeypatch, None, "cpu") == {"vLLM": False}


def test_a_tenon_that_was_installed_before_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "GUARD", "tenon_nobody")
    assert not _found(monkeypatch, "0.32.0", "cpu")["guard inside vLLM"]
