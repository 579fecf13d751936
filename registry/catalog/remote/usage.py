"""Usage, from afar."""

from registry.catalog.remote.pages import listed
from registry.catalog.remote.part import Part
from registry.usage import By, UsageLine, UsageSum


class Usage(Part):
    def usage(self, tenant: str, *, first_day: str, last_day: str) -> tuple[UsageLine, ...]:
        """One line a version and day, both days included. Raises TenantNotFound."""
        query = {"first_day": first_day, "last_day": last_day}
        return listed(self._wire, self._of(tenant, "usage"), UsageLine, query=query)

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
        """``by`` None: a sum a version and day. Raises TenantNotFound, PeriodInvalid, InvalidInput."""
        query = {"first_day": first_day, "last_day": last_day} | ({} if by is None else {"by": by})
        at = self._of(tenant, "usage")
        return listed(self._wire, at, UsageSum, query=query, after=after, limit=limit)
