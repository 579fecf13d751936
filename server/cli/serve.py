"""``tenon serve``: one process role each, configured by TENON_ variables (docs/reference/settings.md)."""

from typing import Annotated

import typer

_SETTINGS = "Settings are TENON_ variables of the environment: see docs/reference/settings.md."
Tied = Annotated[bool, typer.Option("--tied", hidden=True, help="End when the parent process ends")]


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Run one process role (as the chart does).", no_args_is_help=True)
    for role in (control, engine, router):
        group.command(role.__name__, epilog=_SETTINGS)(role)
    app.add_typer(group, name="serve")


def control(tied: Tied = False) -> None:
    """The control plane."""
    from server.assembly import control as assembly
    from server.settings import ControlSettings, load

    _tie(tied)
    assembly.serve(load(ControlSettings))


def engine(tied: Tied = False) -> None:
    """The agent beside one vLLM: starts it, loads adapters, attests them and reports."""
    from server.assembly import engine as assembly
    from server.settings import EngineSettings, load

    _tie(tied)
    assembly.serve(load(EngineSettings))


def router(tied: Tied = False) -> None:
    """The data plane."""
    from server.assembly import router as assembly
    from server.settings import RouterSettings, load

    _tie(tied)
    assembly.serve(load(RouterSettings))


def _tie(tied: bool) -> None:
    if tied:
        from server.assembly.machine import end_with_parent

        end_with_parent()
