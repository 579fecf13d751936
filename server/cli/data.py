"""``tenon data``"""

import typer

from server.cli import data_filter, data_sample


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at, check and make training data.", no_args_is_help=True)
    data_sample.install(group)
    data_filter.install(group)
    app.add_typer(group, name="data")
