"""The key of teachers and judges goes to one host, whatever URLs a recipe names."""

from pathlib import Path

import pytest

from server.assembly.endpoint_key import endpoint_key
from server.errors import SettingsInvalid


@pytest.fixture
def key_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    (tmp_path / "key").write_text("secret\n")
    monkeypatch.setenv("TENON_ENDPOINT_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.delenv("TENON_ENDPOINT_HOST", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("api.example.com", "https://api.example.com/v1"),
        ("API.example.com", "https://api.EXAMPLE.com:443/v1"),
        ("judge.models.svc:8000", "http://judge.models.svc:8000/v1"),
        ("judge.models.svc:8000", "https://judge.models.svc:8000/v1"),
        ("judge:80", "http://judge/v1"),
        ("[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_the_host_that_was_named_gets_it(key_for: pytest.MonkeyPatch, host: str, url: str) -> None:
    key_for.setenv("TENON_ENDPOINT_HOST", host)
    assert endpoint_key(url) == "secret"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example.org/v1",
        "http://api.example.com/v1",  # in clear
        "http://api.example.com:443/v1",
        "https://api.example.com:8443/v1",
        "https://api.example.com.evil.org/v1",
        "https://evil.org/api.example.com/v1",
        "https://api.example.com@evil.org/v1",
        "https://api.example.com:443@evil.org/v1",
        "https://evil.org?@api.example.com/v1",
        "https://evil.org#@api.example.com/v1",
        "https://evil.org:443\\@api.example.com:99/v1",
        "https://api.example.com:x/v1",
    ],
)
def test_no_other_gets_it(key_for: pytest.MonkeyPatch, url: str) -> None:
    key_for.setenv("TENON_ENDPOINT_HOST", "api.example.com")
    assert endpoint_key(url) is None


def test_a_key_without_its_host_is_refused_and_no_key_needs_none(key_for: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsInvalid, match="TENON_ENDPOINT_HOST: say which host"):
        endpoint_key("https://api.example.com/v1")
    for wrong in ("https://api.example.com", "a b", "user@host", "host/path"):
        key_for.setenv("TENON_ENDPOINT_HOST", wrong)
        with pytest.raises(SettingsInvalid, match="TENON_ENDPOINT_HOST: String should match"):
            endpoint_key("https://api.example.com/v1")
    key_for.delenv("TENON_ENDPOINT_KEY_FILE")
    key_for.delenv("TENON_ENDPOINT_HOST")
    assert endpoint_key("https://api.example.com/v1") is None


def test_a_file_that_cannot_be_read_is_told_only_where_it_is_needed(
    key_for: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key_for.setenv("TENON_ENDPOINT_HOST", "api.example.com")
    (tmp_path / "key").unlink()
    assert endpoint_key("https://elsewhere.example.com/v1") is None
    with pytest.raises(SettingsInvalid, match="TENON_ENDPOINT_KEY_FILE: No such file"):
        endpoint_key("https://api.example.com/v1")
