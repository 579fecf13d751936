"""``tenon key``"""

from typing import TYPE_CHECKING, Annotated

import typer

from registry.models import Role
from server.cli import render
from server.cli.options import At, Json, place
from server.cli.tenant import UNLIMITED, limits

if TYPE_CHECKING:
    from registry.models import Key

Whose = Annotated[str | None, typer.Argument(help="Whose; without it, the platform's own")]
Id = Annotated[str, typer.Argument(help="Key id, as tenon key list shows it")]
Of = Annotated[
    str | None, typer.Option("--tenant", help="Whose key it is (only for a platform key at a URL)")
]


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Credentials of tenants and of the platform.", no_args_is_help=True)
    group.command("issue")(issue)
    group.command("list")(list_)
    group.command("rotate")(rotate)
    group.command("quota")(quota)
    group.command("revoke")(revoke)
    app.add_typer(group, name="key")


def issue(
    tenant: Whose = None,
    role: Annotated[
        Role | None,
        typer.Option("--role", help="What it may do [default: inference; platform_admin without a tenant]"),
    ] = None,
    label: Annotated[str, typer.Option("--label", help="For people: what it is for")] = "",
    expires_at: Annotated[
        str | None, typer.Option("--expires-at", help="When it ends: 2026-12-31T00:00:00Z")
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Issue a key. The secret is printed once and cannot be shown again."""
    given = role or (Role.INFERENCE if tenant else Role.PLATFORM_ADMIN)
    key, secret = place(workspace).catalog.issue_key(
        tenant, role=given, label=label, expires_at=expires_at, actor="cli"
    )
    _say(key, secret, json)


def list_(tenant: Whose = None, json: Json = False, workspace: At = None) -> None:
    """List keys (never their secrets)."""
    keys = place(workspace).catalog.keys(tenant)
    if json:
        render.data([_shown(key) for key in keys])
        return
    rows = [
        [key.id, key.role.value, key.label, "revoked" if key.revoked else "valid", key.expires_at or ""]
        for key in keys
    ]
    render.table("", ["key", "role", "for", "state", "expires"], rows)


def rotate(
    key: Id,
    overlap: Annotated[
        float, typer.Option("--overlap", min=0, help="Seconds that the old one keeps working")
    ] = 3600,
    tenant: Of = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Replace a key by a new one with the same rights; both work until the overlap ends."""
    opened = place(workspace)
    if opened.remote is not None:
        found, secret = opened.remote.rotate_key(key, overlap_seconds=overlap, actor="cli", tenant=tenant)
    else:
        found, secret = opened.catalog.rotate_key(key, overlap_seconds=overlap, actor="cli")
    _say(found, secret, json)
    render.note(f"The old key {key} ends in {overlap:g} seconds")


def quota(
    key: Id,
    requests_per_minute: Annotated[
        str | None, typer.Option("--requests-per-minute", metavar="N", help=UNLIMITED)
    ] = None,
    tokens_per_minute: Annotated[
        str | None, typer.Option("--tokens-per-minute", metavar="N", help=UNLIMITED)
    ] = None,
    tokens_per_day: Annotated[
        str | None, typer.Option("--tokens-per-day", metavar="N", help=UNLIMITED)
    ] = None,
    concurrent_requests: Annotated[
        str | None, typer.Option("--concurrent-requests", metavar="N", help=UNLIMITED)
    ] = None,
    tenant: Of = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Change what a key may use, within what its tenant may; what is not named stays as it is."""
    from registry.models import Quota

    changes = limits(
        {
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "tokens_per_day": tokens_per_day,
            "concurrent_requests": concurrent_requests,
        }
    )
    if not changes:
        raise typer.BadParameter("name at least one limit")
    opened = place(workspace)
    there = opened.remote
    known = there.key(key, tenant=tenant) if there is not None else opened.catalog.key(key)
    changed = Quota.build((known.quota or Quota()).model_dump(mode="json") | changes)
    if there is not None:
        there.limit_key(key, changed, actor="cli", tenant=tenant)
    else:
        opened.catalog.limit_key(key, changed, actor="cli")
    if json:
        render.data(changed.model_dump(mode="json"))
    else:
        render.note(f"Quota of key {key} changed; routers follow within seconds")


def revoke(key: Id, tenant: Of = None, json: Json = False, workspace: At = None) -> None:
    """Revoke a key; routers refuse it within seconds."""
    opened = place(workspace)
    if opened.remote is not None:
        opened.remote.revoke_key(key, actor="cli", tenant=tenant)
    else:
        opened.catalog.revoke_key(key, actor="cli")
    if json:
        render.data({"key": key, "revoked": True})
    else:
        render.note(f"Key {key} revoked")


def _shown(key: "Key") -> dict[str, object]:
    """All but the hash: nobody needs it, and what is not shown cannot leak."""
    return key.model_dump(mode="json", exclude={"secret_hash"})


def _say(key: "Key", secret: str, json: bool) -> None:
    if json:
        render.data(_shown(key) | {"secret": secret})
        return
    render.text(secret)
    whose = key.tenant or "the platform"
    render.note(f"Key {key.id} of {whose} ({key.role.value}); keep the secret, it is not shown again")
