"""A list in a file: what it may say, and what becomes of a list that is broken while it is used."""

import logging
import re
from pathlib import Path

import pytest

from registry.errors import InvalidDocument
from server.engines.discovery.sighting import Address, Listed
from server.engines.discovery.static import MAX_BYTES, StaticList, parse

LIST = """\
kind: tenon.engines/v1
engines:
  - name: engine-0
    base: qwen3-8b
    url: http://10.1.0.5:8411
  - {name: engine-1, tenant: bank_a}
"""


def test_it_says_of_an_engine_what_is_written_there() -> None:
    assert parse(LIST.encode()) == {
        "engine-0": Listed(base="qwen3-8b", addresses=frozenset({Address("10.1.0.5", 8411)})),
        "engine-1": Listed(tenant="bank_a"),
    }


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://10.1.0.5:8411", Address("10.1.0.5", 8411)),
        ("http://10.1.0.5:8411/", Address("10.1.0.5", 8411)),
        ("http://Engine-0.Engines", Address("engine-0.engines", 80)),
        ("https://engine-0", Address("engine-0", 443)),
        ("http://[fd00::7]:8411", Address("fd00::7", 8411)),
        ("http://[fd00::7", Address("http://[fd00::7", 0)),
        ("http://a:99999", Address("http://a:99999", 0)),
        ("nonsense", Address("nonsense", 0)),
    ],
)
def test_an_address_is_a_host_and_a_port(url: str, address: Address) -> None:
    assert Address.of(url) == address


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not a valid EngineList"),
        ("kind: tenon.engines/v2\nengines: []", "kind"),
        ("kind: tenon.engines/v1\nengines: [{name: Engine}]", "name"),
        ("kind: tenon.engines/v1\nengines: [{name: a}, {name: a}]", "a is listed twice"),
        ("kind: tenon.engines/v1\nengines: [{name: a, url: 10.1.0.5}]", "url"),
        ("kind: tenon.engines/v1\nengines: [{name: a, url: 'http://me:pass@host'}]", "url"),
        ("kind: tenon.engines/v1\nengines: [{name: a, rank: 8}]", "rank"),
        ("kind: tenon.engines/v1\nengines: [", "line 2"),
        ("\xff", "not a valid EngineList"),
        ("#" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidDocument, match=why):
        parse(text.encode())


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidDocument, match="not UTF-8"):
        parse(b"\xff\xfe")


def test_a_list_that_was_never_readable_is_a_fault_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        StaticList(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("engines")
    with pytest.raises(InvalidDocument):
        StaticList(tmp_path / "bad.yaml")


def test_a_list_that_breaks_later_leaves_what_was_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [10.0]
    file = tmp_path / "engines.yaml"
    file.write_text(LIST)
    listed = StaticList(file, ticks=lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for broken in ("kind: tenon.engines/v1\nengines: [{name: a, a: b}]", "{{{"):
            file.write_text(broken)
            now[0] += 5
            assert set(listed.look().engines) == {"engine-0", "engine-1"}
            assert set(listed.look().engines) == {"engine-0", "engine-1"}
        assert listed.look().heard == 10.0
        assert len(caplog.records) == 2  # once each, not at every look
    file.unlink()
    assert set(listed.look().engines) == {"engine-0", "engine-1"}
    file.write_text(LIST + "  - {name: engine-2}\n")
    assert set(listed.look().engines) == {"engine-0", "engine-1", "engine-2"}
    assert listed.look().heard == 20.0


def test_a_mounted_config_map_is_swapped_as_a_link(tmp_path: Path) -> None:
    for number, text in enumerate((LIST, "kind: tenon.engines/v1\nengines: [{name: other}]")):
        (tmp_path / f"data-{number}").mkdir()
        (tmp_path / f"data-{number}" / "engines.yaml").write_text(text)
    data = tmp_path / "..data"
    data.symlink_to("data-0")
    (tmp_path / "engines.yaml").symlink_to("..data/engines.yaml")
    listed = StaticList(tmp_path / "engines.yaml")
    assert len(listed.look().engines) == 2
    fresh = tmp_path / "..data_tmp"
    fresh.symlink_to("data-1")
    fresh.rename(data)
    assert set(listed.look().engines) == {"other"}


def test_the_example_in_the_docs_is_a_list() -> None:
    page = (Path(__file__).parents[5] / "docs" / "concepts" / "fleet.md").read_text()
    (text,) = re.findall(r"```yaml\n(# engines\.yaml.*?)```", page, re.DOTALL)
    found = parse(text.encode())
    assert found["engine-0"].addresses == frozenset({Address("10.1.0.5", 8411)})
    assert found["engine-1"].tenant == "bank_a"
