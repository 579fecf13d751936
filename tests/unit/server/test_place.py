"""Where a command works, and whose key goes where."""

import stat
from pathlib import Path

import pytest

from registry.errors import InvalidDocument, SigningKeyExposed, WorkspaceNotFound
from server.assembly.logins import Login, Logins
from server.assembly.place import key_for, normal, open_place
from server.errors import FolderNeeded, NotLoggedIn, UrlInvalid

URL = "https://tenon.example.com"


@pytest.fixture
def logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logins:
    for name in ("TENON_WORKSPACE", "TENON_KEY_FILE", "TENON_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TENON_CONFIG_DIR", str(tmp_path / "config"))
    return Logins(tmp_path / "config")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://Tenon.Example.com/", URL),
        ("https://tenon.example.com:443", URL),
        ("http://127.0.0.1:8401", "http://127.0.0.1:8401"),
        ("https://tenon.example.com/team/registry/", f"{URL}/team/registry"),
    ],
)
def test_a_url_has_one_spelling(given: str, kept: str) -> None:
    assert normal(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "https://",
        "https://user:secret@tenon.example.com",
        f"{URL}/?a=1",
        f"{URL}#x",
        "http://[",
        "ftp://x.example",
    ],
)
def test_what_is_no_registrys_url_is_refused(given: str) -> None:
    with pytest.raises(UrlInvalid):
        normal(given)


def test_a_login_is_kept_for_its_url_and_nobody_else(logins: Logins) -> None:
    path = logins.save(Login(url=URL, key="tn_secret"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert key_for(URL) == "tn_secret"
    logins.save(Login(url=URL, key="tn_newer"))
    assert key_for(URL) == "tn_newer"
    for other in ("https://tenon.example.com:8443", "http://tenon.example.com", "https://tenon.example.org"):
        with pytest.raises(NotLoggedIn) as caught:
            key_for(other)
        assert caught.value.advice == f"tenon login {other}"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert (logins.forget(URL), logins.forget(URL)) == (True, False)
    with pytest.raises(NotLoggedIn):
        key_for(URL)


def test_a_login_that_others_can_read_is_not_used(logins: Logins) -> None:
    path = logins.save(Login(url=URL, key="tn_secret"))
    path.chmod(0o640)
    with pytest.raises(SigningKeyExposed):
        key_for(URL)


def test_a_damaged_login_tells_nothing_of_itself(logins: Logins) -> None:
    path = logins.save(Login(url=URL, key="tn_secret"))
    path.write_text(path.read_text().replace('"key"', '"kei"'))
    with pytest.raises(InvalidDocument) as caught:
        key_for(URL)
    assert "tn_secret" not in caught.value.message


def test_a_login_moved_to_another_urls_file_is_not_used(logins: Logins) -> None:
    other = "https://evil.example.com"
    mine, theirs = logins.save(Login(url=URL, key="tn_secret")), logins.save(Login(url=other, key="tn_x"))
    mine.rename(theirs)
    with pytest.raises(NotLoggedIn):
        key_for(other)


def test_a_key_file_is_for_the_url_that_was_set_beside_it(
    logins: Logins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("tn_ci\n")
    monkeypatch.setenv("TENON_WORKSPACE", f"{URL}/")
    monkeypatch.setenv("TENON_KEY_FILE", str(tmp_path / "key"))
    assert key_for(URL) == "tn_ci"
    with pytest.raises(NotLoggedIn):
        key_for("https://elsewhere.example.com")


def test_a_place_is_a_url_or_a_folder(logins: Logins, tmp_path: Path) -> None:
    logins.save(Login(url=URL, key="tn_secret"))
    place = open_place(f"{URL}/")
    assert place.remote is not None
    assert place.remote.url == URL
    with pytest.raises(FolderNeeded):
        place.folder()
    place.close()
    with pytest.raises(WorkspaceNotFound):
        open_place(str(tmp_path))
