import pytest

from registry.assignment import assigned, bucket
from registry.digests import Digest
from registry.models import AliasState, Canary

STABLE, CANARY = Digest.of(b"stable"), Digest.of(b"canary")


def _state(*canaries: Canary, alias: str = "live") -> AliasState:
    return AliasState(
        tenant="bank_a", adapter="desk", alias=alias, version=STABLE, epoch=1, canaries=canaries
    )


@pytest.mark.parametrize(
    ("unit", "at"), [("", 106), ("conversation 1", 1728), ("日本", 8344), ("\ud800", 3150)]
)
def test_the_hash_is_the_documented_one(unit: str, at: int) -> None:
    """Figures of an independent calculation: changing the hash would move people between versions."""
    assert bucket(_state(), unit) == at


def test_without_a_canary_everybody_gets_the_stable_version() -> None:
    assert assigned(_state(), "anyone") == STABLE


@pytest.mark.parametrize("from_top", [False, True])
def test_the_edges_of_a_share(from_top: bool) -> None:
    units = {bucket(_state(), f"{number}"): f"{number}" for number in range(100_000)}
    state = _state(Canary(version=CANARY, percent=25, from_top=from_top))
    for at, unit in units.items():
        inside = at >= 7500 if from_top else at < 2500
        assert assigned(state, unit) == (CANARY if inside else STABLE)
    assert {0, 2499, 2500, 7499, 7500, 9999} <= set(units)


@pytest.mark.parametrize(
    "canaries",
    [
        (Canary(version=STABLE, percent=5),),
        (Canary(version=CANARY, percent=5), Canary(version=CANARY, percent=5, from_top=True)),
        (Canary(version=CANARY, percent=5), Canary(version=Digest.of(b"x"), percent=5)),
        (Canary(version=CANARY, percent=50), Canary(version=Digest.of(b"x"), percent=50, from_top=True)),
    ],
)
def test_states_that_cannot_be(canaries: tuple[Canary, ...]) -> None:
    with pytest.raises(ValueError, match=r"a version is|canaries"):
        _state(*canaries)
