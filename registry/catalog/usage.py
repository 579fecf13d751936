"""Count what routers report, each batch once. No entries: of a bill the log would hold nothing else."""

from datetime import date

from registry.catalog.errors import PeriodInvalid, UsageInvalid, UsageRegressed
from registry.errors import InvalidInput, TenonError
from registry.names import AdapterName
from registry.store.tables.usage import KEYS
from registry.store.transaction import Transaction
from registry.usage import By, UsageBatch, UsageCounted, UsageLine, UsageSum


def count(rows: Transaction, batch: UsageBatch) -> bool:
    """False: it was counted before. Raises UsageInvalid (nothing of it was counted), UsageRegressed."""
    digest, known = batch.identity(), rows.usage.counted(batch.writer)
    if known is not None and batch.seq <= known[0]:
        if (batch.seq, digest) == known:
            return False
        raise UsageRegressed(
            f"the writer {batch.writer} was counted up to {known[0]} and sends {batch.seq} again, changed",
            writer=batch.writer,
            seq=known[0],
        )
    newest = known[0] if known is not None else -1
    if batch.after is not None and batch.after != newest:
        raise UsageRegressed(
            f"the batch of {batch.writer} follows {batch.after}, it was counted up to {newest}",
            writer=batch.writer,
            seq=newest,
        )
    sums: dict[tuple[str, str, str], UsageLine] = {}
    owners = rows.versions.owners({line.version for line in batch.lines})
    for number, line in enumerate(batch.lines):
        if owners.get(line.version) != AdapterName(line.tenant, line.adapter):
            raise UsageInvalid(f"line {number}: {line.tenant}/{line.adapter} has no such version")
        _check_day(line.day, f"line {number}", UsageInvalid)
        key = (line.tenant, line.day, line.version)
        sums[key] = _sum(sums[key], line) if key in sums else line
    rows.usage.count(batch.writer, batch.seq, digest, sums.values())
    return True


def counted(rows: Transaction, writer: str) -> UsageCounted:
    known = rows.usage.counted(writer)
    return UsageCounted(writer=writer, seq=known[0] if known is not None else -1)


def between(rows: Transaction, tenant: str, *, first_day: str, last_day: str) -> tuple[UsageLine, ...]:
    """By day, adapter and version; both days included. Raises PeriodInvalid."""
    _check_days(first_day, last_day)
    return rows.usage.of(tenant, first_day=first_day, last_day=last_day)


def sums(
    rows: Transaction,
    tenant: str,
    *,
    first_day: str,
    last_day: str,
    by: By | None,
    after: str | None,
    limit: int | None,
) -> tuple[UsageSum, ...]:
    """``by`` None: a sum a version and day. ``after``: the key of the sum seen last. Raises PeriodInvalid;
    InvalidInput for a key of none."""
    _check_days(first_day, last_day)
    seen = None if after is None else after.split(" ")
    if seen is not None and len(seen) != len(KEYS[by]):
        raise InvalidInput(f"{after[:80]!r} is the key of no sum of this list")  # type: ignore[index]
    return rows.usage.sums(tenant, first_day=first_day, last_day=last_day, by=by, after=seen, limit=limit)


def _sum(one: UsageLine, other: UsageLine) -> UsageLine:
    return one.model_copy(
        update={
            name: getattr(one, name) + getattr(other, name)
            for name in ("requests", "prompt_tokens", "completion_tokens")
        }
    )


def _check_days(first_day: str, last_day: str) -> None:
    for day, what in ((first_day, "the first day"), (last_day, "the last day")):
        _check_day(day, what, PeriodInvalid)
    if first_day > last_day:
        raise PeriodInvalid(f"the first day, {first_day}, is after the last one, {last_day}")


def _check_day(text: str, what: str, fault: type[TenonError]) -> None:
    try:
        if date.fromisoformat(text).isoformat() == text:
            return
    except ValueError:
        pass
    raise fault(f"{what}: {text[:20]!r} is no day like 2026-01-31")
