"""Where a roll back of an alias would lead, and what it would wait for."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from registry.catalog import moves
from registry.catalog.errors import NothingToRollBack
from registry.catalog.projection import ALIAS_MOVED
from registry.digests import Digest
from registry.log.entries import Entry
from registry.models import AliasState, Former
from registry.names import AdapterName, Ref
from registry.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Step:
    """One roll back."""

    to: AliasState
    said: dict[str, Any]
    """The verdict of the promotion that it returns to."""
    waits: bool
    """For engines, if that is asked for: somebody is answered by what it leaves. What ends canaries leaves
    everybody where most are; an alias that answers nobody has nothing to lose."""


def step_back(rows: Transaction, now: AliasState, at: str) -> Step:
    """See :func:`registry.catalog.aliases.roll_back`. ``at``: the time. Raises NothingToRollBack."""
    where = Ref(AdapterName(now.tenant, now.adapter), alias=now.alias)
    ladder = rungs(rows.log.back(ALIAS_MOVED, str(where)))
    top = next(ladder, None)
    if now.canaries and top is not None:
        ended = {canary.version for canary in now.canaries}
        former = None if now.former is not None and now.former.version in ended else now.former
        return Step(moves.moved(now, canaries=(), former=former), top[1], waits=False)
    shown = rows.versions.get(now.version)
    answers = shown is not None and not shown.revoked and not moves.expired(now, at)
    for state, said in ladder:
        found = rows.versions.get(state.version)
        if (
            state.version != now.version
            and found is not None
            and not found.revoked
            and not moves.expired(state, at)
        ):
            to = moves.moved(
                now,
                version=state.version,
                expires_at=state.expires_at,
                shadows=tuple(version for version in now.shadows if version != state.version),
                former=_below(rows, state, at),
            )
            return Step(to, said, waits=answers)
    raise NothingToRollBack(f"{where} shows no earlier version that could be served")


def rungs(newest_first: Iterable[Entry]) -> Iterator[tuple[AliasState, dict[str, Any]]]:
    """The promotions that are still stood upon, newest first: a roll back takes away all above its target.

    Reads no further back than it is asked for: an alias may have moved a hundred thousand times.
    """
    targets: list[Digest] = []
    """Of the roll backs whose target has not come yet; the last one comes first."""
    for entry in newest_first:
        state = AliasState.build(entry.body["alias"])
        if entry.body["cause"] == "rollback":
            targets.append(state.version)
        elif entry.body["cause"] == "promotion":
            while targets and targets[-1] == state.version:
                targets.pop()
            if not targets:
                yield state, {key: entry.body[key] for key in ("verdict", "verdict_body", "gate")}


def _below(rows: Transaction, state: AliasState, at: str) -> Former | None:
    """What engines keep for the next roll back: what the alias showed before that promotion, which says so.
    Looking for it further down could mean reading the whole log. No conversation goes on with it: after
    a roll back everybody is answered by what it led to."""
    if state.former is None:
        return None
    found = rows.versions.get(state.former.version)
    return None if found is None or found.revoked else state.former.model_copy(update={"until": at})
