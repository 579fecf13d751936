"""What tenants used, and what routers let through."""

from registry.catalog import counts, tenants, usage
from registry.catalog.local.part import Part
from registry.counting import CountAnswer, CountReport
from registry.usage import By, UsageBatch, UsageCounted, UsageLine, UsageSum


class Usage(Part):
    def count_usage(self, batch: UsageBatch) -> bool:
        """False: counted before. Raises UsageInvalid, UsageRegressed."""
        with self._database.write() as rows:
            return usage.count(rows, batch)

    def usage_counted(self, writer: str) -> UsageCounted:
        with self._database.read() as rows:
            return usage.counted(rows, writer)

    def exchange_counts(self, report: CountReport) -> CountAnswer:
        """What a router let through, for what all others did."""
        with self._database.aside() as rows:  # routers ask twice a second: no change waits for them
            return counts.exchange(rows, report, now=self._clock.now().timestamp())

    def usage(self, tenant: str, *, first_day: str, last_day: str) -> tuple[UsageLine, ...]:
        """Raises TenantNotFound, UsageInvalid."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return usage.between(rows, tenant, first_day=first_day, last_day=last_day)

    def usage_sums(
        self,
        tenant: str,
        *,
        first_day: str,
        last_day: str,
        by: By | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> tuple[UsageSum, ...]:
        """See :func:`registry.catalog.usage.sums`. Raises TenantNotFound, UsageInvalid."""
        with self._database.read() as rows:
            tenants.require(rows, tenant)
            return usage.sums(
                rows, tenant, first_day=first_day, last_day=last_day, by=by, after=after, limit=limit
            )
