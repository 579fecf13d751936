import math

from hypothesis import given, settings
from hypothesis import strategies as st

from registry.assignment import assigned, bucket
from registry.digests import Digest
from registry.models import AliasState, Canary

STABLE, ONE, OTHER = (Digest.of(name) for name in (b"stable", b"one", b"other"))
UNITS = [f"conversation-{number}" for number in range(4000)]
SIGMAS = 5
"""Of a binomial share: reached by chance once in two million."""

shares = st.integers(1, 9999).map(lambda hundredths: hundredths / 100)
names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)


@st.composite
def states(draw: st.DrawFn) -> AliasState:
    first = draw(shares)
    canaries = [Canary(version=ONE, percent=first, from_top=draw(st.booleans()))]
    room = 9999 - canaries[0].buckets
    if room >= 1 and draw(st.booleans()):
        second = draw(st.integers(1, room)) / 100
        canaries.append(Canary(version=OTHER, percent=second, from_top=not canaries[0].from_top))
    return AliasState(
        tenant=draw(names),
        adapter=draw(names),
        alias=draw(names),
        version=STABLE,
        epoch=1,
        canaries=tuple(canaries),
    )


def _near(count: int, share: float, of: int) -> bool:
    return abs(count - share * of) <= SIGMAS * math.sqrt(share * (1 - share) * of) + 1


@given(states())
@settings(max_examples=40)
def test_shares_are_what_they_say(state: AliasState) -> None:
    served = [assigned(state, unit) for unit in UNITS]
    for canary in state.canaries:
        assert _near(served.count(canary.version), canary.percent / 100, len(UNITS))
    assert set(served) <= {STABLE, *(canary.version for canary in state.canaries)}


@given(states(), st.data())
@settings(max_examples=40)
def test_raising_a_share_moves_nobody_out_of_a_canary(state: AliasState, data: st.DataObject) -> None:
    which = data.draw(st.sampled_from(range(len(state.canaries))))
    room = 9999 - sum(canary.buckets for canary in state.canaries)
    raised = list(state.canaries)
    buckets = raised[which].buckets + data.draw(st.integers(0, room))
    raised[which] = raised[which].model_copy(update={"percent": buckets / 100})
    after = AliasState.model_validate(dict(state) | {"canaries": tuple(raised)})
    for unit in UNITS[:1000]:
        before, now = assigned(state, unit), assigned(after, unit)
        assert now == before or (before == STABLE and now == state.canaries[which].version)


@given(states(), st.text(), st.integers(2, 1000))
def test_a_conversation_stays_where_it_is_while_the_alias_moves_on(
    state: AliasState, unit: str, epoch: int
) -> None:
    before = assigned(state, unit)
    assert assigned(state, unit) == before
    later = state.model_copy(
        update={
            "epoch": epoch,
            "shadows": (Digest.of(b"copy"),),
            "expires_at": "2030-01-01T00:00:00.000000Z",
            "canaries": tuple(reversed(state.canaries)),
        }
    )
    assert assigned(later, unit) == before
    # A canary that takes the stable version's place moves nobody who had it.
    promoted = state.model_copy(update={"version": ONE, "canaries": ()})
    assert assigned(promoted, unit) == ONE


@given(states(), names)
@settings(max_examples=30)
def test_aliases_choose_independently(state: AliasState, alias: str) -> None:
    """Who is first to try everything would be tired of it."""
    another = state.model_copy(update={"alias": alias})
    if another.alias == state.alias:
        return
    chosen = [unit for unit in UNITS if bucket(state, unit) < 5000]
    both = sum(bucket(another, unit) < 5000 for unit in chosen)
    assert _near(both, 0.5, len(chosen))
