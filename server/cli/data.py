"""``tenon data``"""

import typer


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Look at, check and make training data.", no_args_is_help=True)
    app.add_typer(group, name="data")
