"""A tenant's adapters: names with versions and aliases."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from registry.canonical import Document
from registry.catalog.local.catalog import LocalCatalog
from registry.models import AliasState
from registry.names import AdapterName, parse_name
from server.api.access import TRAINERS, requires, requires_of_tenant
from server.api.caller import Who
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import ID, Page, Place, paged


class Adapter(Document):
    adapter: str
    """``tenant/adapter``."""
    aliases: tuple[AliasState, ...]
    versions: int = Field(ge=0)
    """How many there are, revoked ones included."""


def named(tenant: str, adapter: str) -> AdapterName:
    """Of two path parameters; raises InvalidName."""
    return AdapterName(tenant, parse_name(adapter, "adapter name"))


def routes(control: Control) -> APIRouter:
    adapters = router()
    readers = requires_of_tenant(control, TRAINERS)

    def seen(name: AdapterName) -> Adapter:
        catalog = control.within(name.tenant)
        return Adapter(adapter=str(name), aliases=catalog.aliases(name), versions=catalog.version_count(name))

    def listed(catalog: LocalCatalog, tenant: str | None, place: Place) -> Page[Adapter]:
        after = AdapterName.parse(place.after) if place.after else None
        found = catalog.shown_adapters(tenant, after=after, limit=place.ask)
        shown = [
            Adapter(adapter=str(name), aliases=aliases, versions=count) for name, aliases, count in found
        ]
        return place.page(shown, lambda each: each.adapter)

    @adapters.get("/tenants/{tenant}/adapters", dependencies=[readers])
    def list_adapters(tenant: str, place: Annotated[Place, paged(control, behind=ID)]) -> Page[Adapter]:
        """Adapters with at least one version, by name."""
        return listed(control.within(tenant), tenant, place)

    @adapters.get("/adapters", dependencies=[requires(control, {Who.PLATFORM_ADMIN})])
    def list_all_adapters(place: Annotated[Place, paged(control, behind=ID)]) -> Page[Adapter]:
        """Adapters of all tenants, by tenant and name."""
        return listed(control.catalog, None, place)

    @adapters.get("/tenants/{tenant}/adapters/{adapter}", dependencies=[readers])
    def read_adapter(tenant: str, adapter: str) -> Adapter:
        """One adapter; a name that nothing was pushed to yet has no versions."""
        return seen(named(tenant, adapter))

    return adapters
