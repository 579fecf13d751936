"""Signed reports about versions: what gates decide on."""

from typing import Annotated

from fastapi import APIRouter

from registry.canonical import Document
from registry.catalog.errors import ReportInvalid
from registry.digests import Digest
from registry.evidence import Report
from registry.signing.envelope import Envelope
from server.api.access import TRAINERS, requires_of_tenant
from server.api.adapters import named
from server.api.bodies import takes
from server.api.caller import Caller
from server.api.control import Control
from server.api.guarded import router
from server.api.pages import DIGEST, Page, Place, paged
from server.api.versions import AT, owned


class FiledReport(Document):
    report: Digest


def routes(control: Control) -> APIRouter:
    reports = router()
    trainers = requires_of_tenant(control, TRAINERS)

    @reports.get(f"{AT}/{{version}}/reports", dependencies=[trainers])
    def list_reports(
        tenant: str,
        adapter: str,
        version: str,
        place: Annotated[Place, paged(control, behind=DIGEST)],
    ) -> Page[Envelope]:
        """The signed reports about a version, oldest first."""
        digest = owned(control, named(tenant, adapter), version)
        after = Digest(place.after) if place.after else None
        found = control.within(tenant).report_envelopes(digest, after=after, limit=place.ask)
        return place.page(found, lambda envelope: Digest.of(envelope.body()))

    @reports.post(f"{AT}/{{version}}/reports", status_code=201)
    def file_report(
        tenant: str,
        adapter: str,
        version: str,
        caller: Annotated[Caller, trainers],
        envelope: Annotated[Envelope, takes(Envelope)],
    ) -> FiledReport:
        """A signed report about this version; filing it twice changes nothing."""
        name = named(tenant, adapter)
        digest = owned(control, name, version)
        report = Report.parse(envelope.body())
        if (report.tenant, report.adapter, report.version) != (name.tenant, name.adapter, digest):
            raise ReportInvalid("the report is about another version than the path")
        return FiledReport(report=control.within(tenant).file_report(envelope, actor=caller.actor))

    return reports
