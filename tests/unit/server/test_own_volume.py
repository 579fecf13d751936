"""Records on a router's own volume, checked against a registry that is elsewhere."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.api.app import create_app
from server.assembly import place as places
from tests.journeys.commands import tenon_here
from tests.support.chains import grow
from tests.support.control import control_world
from tests.support.remote import serving


@dataclass
class Site:
    url: str
    volume: Path
    trust: Path

    def verify(self, *options: str) -> tuple[int, str]:
        done = tenon_here("log", "verify", "--records", str(self.volume), "-w", self.url, *options)
        return done.code, done.err


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """router-0's volume here, router-1's elsewhere; the registry behind a URL."""
    (tmp_path / "control").mkdir()
    with control_world(tmp_path / "control") as bench, serving(create_app(bench.control)) as url:
        secret = bench.secret("platform_admin", None)
        monkeypatch.setattr(places, "key_for", lambda _url: secret)
        grow(tmp_path / "volume" / "router-0", ["bank_a"] * 7, bench.world.catalog, more=2)
        grow(tmp_path / "elsewhere" / "router-1", ["bank_a"] * 3, bench.world.catalog)
        trust = tmp_path / "keys.json"
        keys = [key.model_dump(mode="json") for key in bench.world.catalog.trusted().values()]
        keys += [bench.world.catalog.log_key().model_dump(mode="json")]
        trust.write_text(json.dumps(keys))
        yield Site(url, tmp_path / "volume", trust)


def test_a_volume_is_checked_over_the_url(site: Site) -> None:
    for options in ((), ("--trust", str(site.trust))):
        code, said = site.verify(*options)
        assert code == 0, said
        assert "ok: 9 request records" in said
        assert "newest 2 records" in said
        assert "router-1" in said
        assert ("not proven" in said) == (not options)


def test_what_was_changed_or_cut_off_is_told(site: Site) -> None:
    files = sorted((site.volume / "router-0").glob("*.jsonl"))
    whole = files[0].read_bytes()
    files[0].write_bytes(whole.replace(b"bank_a", b"bank_b", 1))
    code, said = site.verify()
    assert code == 1
    assert "bytes were changed" in said
    files[0].write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    for file in files[1:]:
        file.unlink()
    code, said = site.verify("--json")
    assert code == 1
    assert "the end was cut off" in said


def test_another_log_key_or_no_folder_is_an_error(site: Site, tmp_path: Path) -> None:
    from registry.signing.keys import Signer

    other = tmp_path / "other.json"
    other.write_text(json.dumps([Signer.generate("log").public.model_dump(mode="json")]))
    assert site.verify("--trust", str(other))[0] == 1
    done = tenon_here("log", "verify", "--records", str(tmp_path / "nope"), "-w", site.url)
    assert done.code == 1
    assert "cannot be read" in done.err


def test_exposure_asks_a_url_and_a_volume(site: Site) -> None:
    asked = ("exposure", "--event", "vllm-47724", "--since", "2020-01-01T00:00:00Z", "-w", site.url, "--json")
    done = tenon_here(*asked, "--records", str(site.volume))
    assert json.loads(done.out)["answers"] == 0  # made-up records name no engine
    assert any(each["writer"] == "router-1" for each in json.loads(done.out)["unjudged"])
    without = tenon_here(*asked)
    assert without.code == 1
    assert "--records" in without.err
