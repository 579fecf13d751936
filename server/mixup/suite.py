"""The order of things: quiet references, storms, single checks, and last what can end the server."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from server.mixup import calls, doors, storm, swaps, turns, weights
from server.mixup.dangers import DANGERS
from server.mixup.errors import ReferenceRefused, ServerSilent
from server.mixup.finding import Finding
from server.mixup.ground import Ground

Check = Callable[[Ground], Awaitable[Finding]]
Say = Callable[[str], None]

CHECKS: Final[Mapping[str, Check]] = {
    "S1": turns.shared_prefixes,
    "D3": swaps.evicted_and_swapped,
    "D6": swaps.in_place,
    "D7": swaps.cached_prefix,
    "D8": doors.without_key,
    "D9": doors.sagemaker,
    "D10": doors.without_model,
    "D13": turns.starvation,
    "D14": doors.paths,
    "D15": calls.arguments,
    "D16": weights.other_structure,
    # From here on the server can be left broken: each is followed by a restart where that is possible.
    "D12": weights.broken_values,
    "D11": doors.prompt_logprobs,
    "D4": swaps.evicted_and_deleted,
    "D5": swaps.taken_again,
}
Storm = Callable[[Ground, int], Awaitable[Finding]]
STORMS: Final[Mapping[str, tuple[Storm, float]]] = {
    "Q1": (storm.plain, 0.35),
    "D1": (storm.with_base, 0.25),
    "D2": (storm.under_churn, 0.4),
}
"""And the share of all requests that each gets."""


async def run(
    ground: Ground,
    *,
    say: Say,
    storms: Mapping[str, tuple[Storm, float]] = STORMS,
    checks: Mapping[str, Check] = CHECKS,
    harmless: frozenset[str] = frozenset(),
) -> list[Finding]:
    """One finding for each danger, in the order of the table. ``harmless``: what ends no server the way that
    it is asked here. Raises ServerSilent and as preparing does."""
    if not await ground.wire.alive():
        raise ServerSilent(f"no answer at {ground.wire.url}")
    found: dict[str, Finding] = {}
    if not ground.references.traces:
        say("recording what each adapter answers while nothing else is asked")
        await ground.prepare()
    references = ground.references
    say(f"noise {references.noise:.2g}, nearest two adapters {references.nearest():.2g} nats apart")
    for danger, (load, share) in storms.items():
        if ground.plan.wants(danger):
            say(f"{danger} {DANGERS[danger].title}")
            found[danger] = await load(ground, round(share * ground.plan.requests))
    for danger, check in checks.items():
        if ground.plan.wants(danger):
            found[danger] = await _one(
                ground, danger, check, say, destructive=DANGERS[danger].destructive and danger not in harmless
            )
    return [found.get(danger, _not_asked(danger)) for danger in DANGERS]


async def _one(ground: Ground, danger: str, check: Check, say: Say, *, destructive: bool) -> Finding:
    if destructive and not ground.plan.destructive:
        return Finding(danger=danger, outcome="not_tested", why="can end the server: ask with --destructive")
    if not await ground.wire.alive() and not await _revived(ground):
        return Finding(danger=danger, outcome="not_tested", why="the server no longer answers")
    say(f"{danger} {DANGERS[danger].title}")
    try:
        found = await check(ground)
    except ReferenceRefused as error:
        found = Finding(danger=danger, outcome="not_tested", why=error.message[:120])
    if destructive:
        await _revived(ground)
    return found


async def _revived(ground: Ground) -> bool:
    if ground.restart is None:
        return False
    await ground.restart()
    await ground.again()
    return True


def _not_asked(danger: str) -> Finding:
    return Finding(danger=danger, outcome="not_tested", why="not asked for")
