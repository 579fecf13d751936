"""Entry point: the tree of commands, and the one place where an error becomes an exit code."""

import sys

import typer

from registry.errors import GateRefused, TenonError
from registry.routing.errors import RouteRefused
from server.cli import render
from server.errors import FileUnusable

app = typer.Typer(
    name="tenon",
    help="Serve many tenants' LoRA adapters from one base, with proof of which adapter answered.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _assemble() -> None:
    from server.cli import (
        adapter,
        alias,
        base,
        blobs,
        data,
        demo,
        doctor,
        evaluate,
        exposure,
        fleet,
        history,
        init,
        key,
        log,
        login,
        mixup,
        policy,
        promote,
        proposal,
        receipt,
        recipe,
        record,
        revoke,
        rollback,
        route,
        serve,
        shadow,
        signer,
        tenant,
        train,
        up,
        usage,
    )

    init.install(app)
    login.install(app)
    tenant.install(app)
    key.install(app)
    base.install(app)
    policy.install(app)
    route.install(app)
    data.install(app)
    recipe.install(app)
    train.install(app)
    evaluate.install(app)
    adapter.install(app)
    promote.install(app)
    rollback.install(app)
    revoke.install(app)
    history.install(app)
    alias.install(app)
    proposal.install(app)
    signer.install(app)
    usage.install(app)
    blobs.install(app)
    up.install(app)
    fleet.install(app)
    log.install(app)
    receipt.install(app)
    record.install(app)
    exposure.install(app)
    shadow.install(app)
    mixup.install(app)
    demo.install(app)
    doctor.install(app)
    serve.install(app)


def main() -> None:
    """Exit codes: 0 ok, 1 failed, 2 usage, 3 a gate refused, 4 unreachable."""
    if not app.registered_commands:
        _assemble()
    try:
        app()
    except TenonError as error:
        render.error(error)
        sys.exit(3 if isinstance(error, (GateRefused, RouteRefused)) else 4 if error.status == 503 else 1)
    except (OSError, UnicodeDecodeError) as error:
        name = getattr(error, "filename", None) or "a file"
        render.error(FileUnusable(f"{name} cannot be used: {getattr(error, 'strerror', None) or error}"))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
