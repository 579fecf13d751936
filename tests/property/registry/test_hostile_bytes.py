"""Whatever bytes arrive, each parser answers with a value or a coded error. The long run: tests/fuzz.py."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import seeds
from tests.support.hostile import TARGETS, throw

pytestmark = pytest.mark.filterwarnings("ignore:Duplicate name")
edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "double", "insert"]), st.integers(0, 2**32), st.binary(max_size=6)
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def spoilt(data: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    for what, where, piece in changes:
        at = where % (len(data) + 1)
        if what == "flip":
            data = data[:at] + piece + data[at + len(piece) :]
        elif what == "insert":
            data = data[:at] + piece * (1 + where % 3) + data[at:]
        elif what == "double":
            data = data[:at] + data[max(0, at - 40) : at] + data[at:]
        else:
            data = data[:at] + data[at + 1 + where % 30 :]
    return data


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"envelope"}))
def test_the_seeds_are_sound(folder: Path, name: str) -> None:
    """Else every mutation would be refused for the same dull reason."""
    assert any(throw(name, seed, folder) for seed in seeds.of(name))


@pytest.mark.parametrize("name", sorted(TARGETS))
@given(data=st.data())
def test_a_value_or_a_coded_error(folder: Path, name: str, data: st.DataObject) -> None:
    sound = st.builds(spoilt, st.sampled_from(seeds.of(name)), edits)
    hostile = data.draw(sound | st.binary(max_size=200))
    started = time.process_time()
    throw(name, hostile, folder)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", sorted(TARGETS))
@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'"' + b"\\u0000" * 10_000 + b'"',
        b"1" * 100_000,
        b"1e999",
        b"-1e999",
        b"NaN",
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b'{"a":1,"a":2}',
        b"\xff" * 5000,
        b"\0" * 5000,
        b"(" * 5000,
        b"- " * 5000,
        b"&a [*a]",
        b"sha256:" + b"0" * 100_000,
    ],
    ids=lambda data: ascii(data[:12]),
)
def test_well_known_monsters(folder: Path, name: str, hostile: bytes) -> None:
    started = time.process_time()
    throw(name, hostile, folder)
    assert time.process_time() - started < 5
