"""An engine is idle when nothing came for a while, and not when it happens to have nothing right now."""

from collections.abc import Sequence
from typing import cast

from router.limits import Timeouts
from server.engines.cadence import Cadence
from server.engines.client import VllmClient
from server.engines.drain import Drain, drained, vacating
from server.engines.errors import EngineUnreachable


class Busy:
    """Says at each look how many requests are under way; the last figure holds."""

    def __init__(self, figures: Sequence[float]) -> None:
        self._figures = list(figures)
        self.looks = 0

    async def unfinished(self) -> float:
        self.looks += 1
        return self._figures.pop(0) if len(self._figures) > 1 else self._figures[0]

    async def made(self) -> float | None:
        return 0.0


async def _drained(engine: Busy, *, quiet: float, limit: float = 30.0) -> bool:
    return await drained(cast("VllmClient", engine), Drain(quiet=quiet, limit=limit))


async def test_a_request_that_was_sent_before_the_news_is_waited_for() -> None:
    engine = Busy([0, 0, 1, 1, 0])
    assert await _drained(engine, quiet=60, limit=0.5) is False, "it was never quiet for that long"
    engine = Busy([0, 0, 1, 1, 0])
    assert await _drained(engine, quiet=0.2)
    assert engine.looks > 5, "the request arrived after two idle looks"


async def test_an_engine_that_stays_busy_is_given_up() -> None:
    assert await _drained(Busy([1]), quiet=0, limit=0.2) is False


async def test_an_engine_that_does_not_answer_has_nothing_to_wait_for() -> None:
    class Gone(Busy):
        async def unfinished(self) -> float:
            self.looks += 1
            raise EngineUnreachable("gone")

    engine = Gone([0])
    assert await _drained(engine, quiet=60) is False
    assert engine.looks == 1


def test_a_renewal_waits_for_an_answer_as_long_as_a_router_does() -> None:
    drain = vacating(Cadence())
    for second in range(int(Timeouts().whole)):
        assert drain.over(second, running=1, made=second) is None
    late = "begun by a router that had not heard yet"
    assert drain.over(Timeouts().whole, running=1, made=-1) is None, late
    assert drain.over(Timeouts().whole + 1, running=1, made=0) is False


def test_an_engine_that_makes_no_tokens_for_what_runs_is_given_up() -> None:
    cadence = Cadence()
    drain, patience = vacating(cadence), cadence.misses * cadence.answer
    assert drain.over(0, running=2, made=5) is None
    assert drain.over(patience - 1, running=2, made=6) is None
    assert drain.over(2 * patience - 2, running=2, made=6) is None
    assert drain.over(2 * patience - 1, running=2, made=6) is False
