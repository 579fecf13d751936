"""``tenon proposal``"""

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place
from server.cli.waiting import NoWait, Wait, moved, patience

if TYPE_CHECKING:
    from registry.promotions import Proposal
    from server.assembly.place import Catalog

Tenant = Annotated[str, typer.Argument(help="Whose proposal")]
Id = Annotated[str, typer.Argument(help="As tenon promote printed it")]


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Promotions that wait for other people's approval.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("approve")(approve)
    group.command("reject")(reject)
    app.add_typer(group, name="proposal")


def list_(
    tenant: Tenant,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are decided")] = False,
    json: Json = False,
    workspace: At = None,
) -> None:
    """List proposals: who wants to move which alias to what."""
    found = [one for one in place(workspace).catalog.proposals(tenant) if everything or one.state == "open"]
    if json:
        render.data([one.model_dump(mode="json") for one in found])
        return
    render.table(
        "",
        ["proposal", "state", "alias", "version", "percent", "by", "at", "approved by"],
        [
            [
                one.id, one.state, f"{one.tenant}/{one.adapter}:{one.alias}", one.version.short,
                f"{one.percent:g}", one.proposed_by, one.proposed_at, ", ".join(one.approved_by),
            ]
            for one in found
        ],
    )  # fmt: skip


def approve(
    tenant: Tenant,
    proposal: Id,
    wait: Wait = 120,
    no_wait: NoWait = False,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Consent to a promotion. With enough consent its gate is asked again, and the alias moves once the
    engines hold the version."""
    from registry.names import AdapterName
    from server.assembly import promoting

    catalog = place(workspace).catalog
    asked = _known(catalog, tenant, proposal)
    with patience(wait, no_wait=no_wait, quiet=json) as patient:
        approved = promoting.approve(catalog, asked, patience=patient, actor="cli")
    _say(approved, json)
    if approved.state == "done":
        name = AdapterName(approved.tenant, approved.adapter)
        found = catalog.readiness(name, approved.version, alias=approved.alias)
        moved(found, percent=approved.percent)


def reject(
    tenant: Tenant,
    proposal: Id,
    reason: Annotated[str, typer.Option("--reason", help="Stays in the log")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """End a proposal; whoever made it may make another."""
    catalog = place(workspace).catalog
    _known(catalog, tenant, proposal)
    _say(catalog.reject(proposal, reason=reason, actor="cli"), json)


def _known(catalog: "Catalog", tenant: str, proposal: str) -> "Proposal":
    """Raises ProposalNotFound: an id of another tenant's is not what was meant."""
    from registry.catalog.errors import ProposalNotFound

    for one in catalog.proposals(tenant):
        if one.id == proposal:
            return one
    raise ProposalNotFound(f"{tenant} has no proposal {proposal[:80]!r}")


def _say(proposal: "Proposal", json: bool) -> None:
    if json:
        render.data(proposal.model_dump(mode="json"))
        return
    where = f"{proposal.tenant}/{proposal.adapter}:{proposal.alias}"
    if proposal.state == "done":
        render.note(f"{where} is now {proposal.version.short}")
    elif proposal.state == "open":
        render.note(f"Approved by {len(proposal.approved_by)}; {where} waits for more")
    else:
        render.note(f"{proposal.id} is {proposal.state}; {where} stays where it is")
