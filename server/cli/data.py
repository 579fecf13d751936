"""``tenon data``: one file a subcommand."""

from types import ModuleType
from typing import Final

import typer

from server.cli import data_audit, data_filter, data_label, data_mask, data_sample, data_verify

_COMMANDS: Final[tuple[ModuleType, ...]] = (
    data_audit,
    data_filter,
    data_label,
    data_mask,
    data_sample,
    data_verify,
)
"""Each has ``install(group)``."""


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at, check and make training data.", no_args_is_help=True)
    for command in _COMMANDS:
        command.install(group)
    app.add_typer(group, name="data")
