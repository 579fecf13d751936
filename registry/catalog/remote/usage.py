"""Usage, from afar."""

from registry.catalog.remote.pages import listed
from registry.catalog.remote.part import Part
from registry.usage import UsageLine


class Usage(Part):
    def usage(self, tenant: str, *, first_day: str, last_day: str) -> tuple[UsageLine, ...]:
        """One line a version and day, both days included. Raises TenantNotFound."""
        query = {"first_day": first_day, "last_day": last_day}
        return listed(self._wire, self._of(tenant, "usage"), UsageLine, query=query)
