"""What routers tell each other of limits. No entries: it is forgotten within a day."""

from registry.counting import DAY_SECONDS, CountAnswer, CountReport, until
from registry.store.transaction import Transaction


def exchange(rows: Transaction, report: CountReport, *, now: float) -> CountAnswer:
    """Keep what is not past, forget what is, and tell what all others counted."""
    rows.counts.forget(int(now))
    # A router whose clock is far ahead must not leave rows for ever.
    kept = ((count, int(min(until(count, now), now + 2 * DAY_SECONDS))) for count in report.counts)
    rows.counts.put(report.writer, report.seq, [(count, end) for count, end in kept if end > now])
    return CountAnswer(
        counts=rows.counts.of_others(report.writer, set(report.about)),
        routers=rows.counts.other_routers(report.writer),
    )
