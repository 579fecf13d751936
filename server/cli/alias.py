"""``tenon alias``"""

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli import render
from server.cli.options import At, Epoch, Json, place

if TYPE_CHECKING:
    from registry.models import AliasState

Name = Annotated[str, typer.Argument(help="tenant/adapter")]
Which = Annotated[str, typer.Option("--alias", help="Which alias")]


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Where names point: stable version, canaries, shadows.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("shadow")(shadow)
    group.command("protect")(protect)
    app.add_typer(group, name="alias")


def list_(name: Name, json: Json = False, workspace: At = None) -> None:
    """List an adapter's aliases."""
    from registry.names import AdapterName

    states = place(workspace).catalog.aliases(AdapterName.parse(name))
    if json:
        render.data([state.model_dump(mode="json") for state in states])
    else:
        columns = ["alias", "epoch", "version", "canaries", "shadows", "expires"]
        render.table("", columns, [_row(state) for state in states])


def show(name: Name, alias: Which = "live", json: Json = False, workspace: At = None) -> None:
    """Show where an alias points, and the epoch that --expect-epoch wants."""
    from registry.names import AdapterName

    state = place(workspace).catalog.alias(AdapterName.parse(name), alias)
    if json:
        render.data(state.model_dump(mode="json"))
        return
    rows = [
        ["epoch", str(state.epoch)],
        ["stable", state.version],
        *[["canary", f"{canary.version} ({canary.percent:g} %)"] for canary in state.canaries],
        *[["shadow", version] for version in state.shadows],
        *([["former", f"{state.former.version} (to epoch {state.former.epoch})"]] if state.former else []),
        *([["expires", state.expires_at]] if state.expires_at else []),
    ]
    render.table(f"{name}:{alias}", ["what", "value"], rows)


def shadow(
    name: Name,
    version: Annotated[list[str] | None, typer.Argument(help="sha256:…; none: no shadows any more")] = None,
    alias: Which = "live",
    expect_epoch: Epoch = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Let versions get copies of an alias's requests; their answers reach nobody."""
    from registry.digests import Digest
    from registry.names import AdapterName

    state = place(workspace).catalog.shadow(
        AdapterName.parse(name),
        tuple(Digest(text) for text in version or ()),
        alias=alias,
        expect_epoch=expect_epoch,
        actor="cli",
    )
    if json:
        render.data(state.model_dump(mode="json"))
    else:
        render.note(f"{name}:{alias} has {len(state.shadows)} shadows")


def protect(
    tenant: Annotated[str, typer.Argument(help="Whose adapters")],
    alias: Which = "live",
    approvals: Annotated[
        int, typer.Option("--approvals", min=0, max=5, help="People besides who proposes (four eyes: 1)")
    ] = 0,
    release_signature: Annotated[
        bool, typer.Option("--release-signature", help="Moves must be signed by a release key")
    ] = False,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Say what moving an alias needs besides its gate, for all of a tenant's adapters."""
    from registry.names import parse_name
    from registry.promotions import Protection

    protection = Protection(
        tenant=parse_name(tenant, "tenant"),
        alias=parse_name(alias, "alias"),
        approvals=approvals,
        release_signature=release_signature,
    )
    place(workspace).catalog.protect(protection, actor="cli")
    if json:
        render.data(protection.model_dump(mode="json"))
        return
    signed = " and a release signature" if release_signature else ""
    render.note(f"Every {tenant} …:{alias} now needs {approvals} approvals{signed} besides its gate")


def _row(state: "AliasState") -> list[str]:
    return [
        state.alias,
        str(state.epoch),
        state.version.short,
        ", ".join(f"{canary.version.short} {canary.percent:g} %" for canary in state.canaries),
        ", ".join(version.short for version in state.shadows),
        state.expires_at or "",
    ]
