"""``tenon shadow``"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from server.cli import render
from server.cli.options import At, Json, root

if TYPE_CHECKING:
    from server.shadows.compare import Compared, Side


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Versions that get copies of requests.", no_args_is_help=True)
    group.command("compare")(compare)
    group.callback()(lambda: None)  # one command alone would swallow its own name
    app.add_typer(group, name="shadow")


def compare(
    name: Annotated[str, typer.Argument(help="tenant/adapter, or tenant/adapter:alias")],
    since: Annotated[str | None, typer.Option("--since", help="RFC 3339 time with its zone")] = None,
    records: Annotated[
        Path | None, typer.Option("--records", help="Routers' record folders [default: the workspace's]")
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Compare shadow versions with what answered: agreement, tokens, latency and errors, in pairs."""
    from datetime import datetime

    from registry.clock import restamp
    from registry.names import AdapterName, parse_name
    from server.assembly.proved_log import writers
    from server.errors import RecordNotFound
    from server.shadows.compare import compare as compared
    from server.shadows.compare import known
    from server.workspace import find

    path, colon, alias = name.partition(":")
    folder, adapter = records or find(root(workspace)).records, AdapterName.parse(path)
    writers(folder)
    asked = parse_name(alias, "alias") if colon else None
    if not known(folder, adapter, asked):  # of a name that is misspelled, "no shadow" would be a wrong answer
        raise RecordNotFound(
            f"no request of {name} is on record in {folder}", hint="check the name and the folder"
        )
    found = compared(
        folder,
        adapter,
        alias=asked,
        since=datetime.fromisoformat(restamp(since, "--since")) if since else None,
    )
    if json:
        render.data(_data(found))
        return
    if not found.comparisons:
        render.note(f"no request of {name} had a shadow")
    else:
        _show(name, found)
    if found.unpaired:
        render.note(f"{found.unpaired} shadows are left out: the record of their primary is not here")


def _show(name: str, found: "Compared") -> None:
    from server.shadows.compare import QUANTILES

    rows = []
    for each in found.comparisons:
        agreement = (
            f"{each.agreement:.1%} of {each.agreed + each.differed}" if each.agreement is not None else "-"
        )
        for role, version, side in (
            ("answered", each.version, each.primaries),
            ("shadow", each.shadow, each.shadows),
        ):
            rows.append(
                [
                    each.alias,
                    role,
                    version.short,
                    str(each.pairs),
                    agreement if role == "shadow" else "",
                    f"{side.prompt_tokens} + {side.completion_tokens}",
                    *(_ms(side.quantile(share)) for share in QUANTILES),
                    ", ".join(f"{code} {count}" for code, count in sorted(side.errors.items())) or "-",
                ]
            )
    quantiles = [f"p{share * 100:.0f} ms" for share in QUANTILES]
    render.table(
        name, ["alias", "", "version", "pairs", "agrees", "tokens in + out", *quantiles, "errors"], rows
    )


def _ms(value: int | None) -> str:
    return "-" if value is None else str(value)


def _data(found: "Compared") -> dict[str, Any]:
    return {
        "comparisons": [
            {
                "alias": each.alias,
                "pairs": each.pairs,
                "agreed": each.agreed,
                "differed": each.differed,
                "agreement": each.agreement,
                "answered": {"version": each.version, **_side(each.primaries)},
                "shadow": {"version": each.shadow, **_side(each.shadows)},
            }
            for each in found.comparisons
        ],
        "unpaired": found.unpaired,
    }


def _side(side: "Side") -> dict[str, Any]:
    from server.shadows.compare import QUANTILES

    return {
        "prompt_tokens": side.prompt_tokens,
        "completion_tokens": side.completion_tokens,
        "milliseconds": {f"p{share * 100:.0f}": side.quantile(share) for share in QUANTILES},
        "errors": dict(sorted(side.errors.items())),
    }
