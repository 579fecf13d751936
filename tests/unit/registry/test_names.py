import pytest

from registry.digests import Digest
from registry.errors import InvalidName, InvalidRef
from registry.names import LIVE, AdapterName, Ref, engine_name, parse_name

DIGEST = Digest.of(b"version")


@pytest.mark.parametrize("name", ["a", "0", "bank_a", "a-b_c", "a" * 63])
def test_names(name: str) -> None:
    assert parse_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "a" * 64, "A", "_a", "-a", "a.b", "..", "a/b", "a b", "a\n", "ä", "a\x00", "a:b", "a@b", "²"],
)
def test_names_that_could_mean_something_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        parse_name(name)


def test_refs_say_an_alias_or_a_version() -> None:
    name = AdapterName("bank_a", "assistant")
    assert Ref.parse("bank_a/assistant") == Ref(name, alias=LIVE)
    assert Ref.parse("bank_a/assistant:canary") == Ref(name, alias="canary")
    assert Ref.parse(f"bank_a/assistant@{DIGEST}") == Ref(name, version=DIGEST)


@pytest.mark.parametrize(
    "text",
    [
        "assistant",
        "/assistant",
        "bank_a/",
        "bank_a/assistant:",
        "bank_a/assistant@",
        "bank_a/assistant@sha256:12",
        f"bank_a/assistant:live@{DIGEST}",
        "bank_a/../saas_c/assistant",
        "bank_a/assistant:a:b",
        "bank_a//assistant",
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(InvalidRef):
        Ref.parse(text)


def test_engine_names_are_one_per_digest() -> None:
    other = Digest.of(b"another version")
    assert engine_name(DIGEST) != engine_name(other)
    assert engine_name(DIGEST) == f"tenon-{DIGEST.hex}"
