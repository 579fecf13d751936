"""What is told of finished requests: metrics always, spans and log lines where an operator wants them."""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from router.circuit import Circuit
from router.logs import AccessLog
from router.metrics import Metrics
from router.moments import Moments
from router.pipeline import Pipeline
from router.ports import Spans
from router.reach import Reach
from router.records.heads import Heads
from router.records.record import Trace
from router.usage import UsageReports

_STATES: Mapping[Circuit, float] = {Circuit.CLOSED: 0, Circuit.HALF_OPEN: 1, Circuit.OPEN: 2}


def finishing(
    measured: Metrics, spans: Spans | None, access: AccessLog | None
) -> Callable[[Trace, Moments], None]:
    """What the pipeline calls once for every request; what is off is not even looked at."""
    wanted = [measured.finished, *(each.finished for each in (spans, access) if each is not None)]
    if len(wanted) == 1:
        return measured.finished

    def finished(trace: Trace, moments: Moments) -> None:
        for tell in wanted:
            tell(trace, moments)

    return finished


def _volume(folder: Path) -> tuple[float, float]:
    """(size, what is left of it) in bytes; not numbers while nobody can tell."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return math.nan, math.nan
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def watch(
    measured: Metrics,
    pipeline: Pipeline,
    heads: Heads,
    usage: UsageReports | None,
    reach: Reach,
    spans: Spans | None,
    access: AccessLog | None,
) -> None:
    """The values that are read at a scrape."""
    feed, log = pipeline.feed, pipeline.log
    placement, queue = pipeline.attempts.placement, pipeline.attempts.queue

    def engines() -> dict[str, float]:
        known = feed.latest.state.engines if feed.latest else {}
        busy = placement.leases.engines()
        return {name: busy.get(name, 0) for name in sorted({*known, *busy})}

    def circuits() -> dict[str, float]:
        known = feed.latest.state.engines if feed.latest else {}
        states = placement.circuits.states()
        return {name: _STATES[states.get(name, Circuit.CLOSED)] for name in sorted(known)}

    each, one = measured.each, measured.watch
    each("tenon_engine_requests_in_flight", "Leases per engine", "engine", engines)
    each("tenon_engine_circuit", "0 closed, 1 half open, 2 open", "engine", circuits)
    one("tenon_queue_waiting", "Requests that wait for a free place", lambda: queue.waiting)
    one("tenon_queue_oldest_seconds", "Wait of the first in the queue", lambda: queue.oldest)
    one(
        "tenon_queue_refused_total",
        "Requests that never got a place",
        lambda: queue.refused,
        kind="counter",
    )
    one("tenon_engines_unreachable", "Engines that take no connection", lambda: reach.unreachable)
    one("tenon_feed_age_seconds", "Since the registry was last heard", lambda: feed.age)
    one("tenon_feed_lag_entries", "Log entries told of and not in force yet", lambda: feed.lag)
    one("tenon_feed_size", "Log entries behind the tables", lambda: feed.latest.size if feed.latest else 0)
    one("tenon_attested_places", "Usable attested slots", lambda: feed.latest.attested if feed.latest else 0)
    one("tenon_feed_faults", "State left out", lambda: len(feed.latest.faults) if feed.latest else 0)
    one("tenon_records_waiting", "Record lines not yet on disk", lambda: log.waiting)
    one("tenon_records_broken", "1 while records cannot be written", lambda: log.fault is not None)
    if usage is not None:
        one(
            "tenon_usage_unreported",
            "Durable lines not known to be reported",
            lambda: usage.waiting,
        )
    one(
        "tenon_record_chain_refused",
        "1 while the registry knows another chain of this writer",
        lambda: heads.refused,
    )
    one("tenon_record_volume_bytes", "Of the volume that records are on", lambda: _volume(log.folder)[0])
    one("tenon_record_volume_free_bytes", "Room left on it", lambda: _volume(log.folder)[1])
    one("tenon_record_heads_unsent", "Durable lines no accepted head covers", lambda: heads.unsent)
    one(
        "tenon_records_total",
        "Record lines on disk, since the chain began",
        lambda: log.durable.seq if log.durable is not None else 0,
        kind="counter",
    )
    one(
        "tenon_leases_expired_total",
        "Leases that outlived their time",
        lambda: placement.leases.expired,
        kind="counter",
    )
    shadows = pipeline.shadows
    one("tenon_shadows_waiting", "Copies for shadow versions in the queue", lambda: shadows.waiting)
    one("tenon_shadows_asked_total", "Copies that were sent", lambda: shadows.asked, kind="counter")
    one("tenon_shadows_dropped_total", "Copies without room", lambda: shadows.dropped, kind="counter")
    if spans is not None:
        one("tenon_spans_dropped_total", "Spans that were never sent", lambda: spans.dropped, kind="counter")
    if access is not None:
        one(
            "tenon_access_log_dropped_total",
            "Lines that were never written",
            lambda: access.dropped,
            kind="counter",
        )
