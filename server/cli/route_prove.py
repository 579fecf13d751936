"""``tenon route prove``"""

import shlex
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place

if TYPE_CHECKING:
    from registry.routing.proof import Case, Finding, Proof

REFUSED = 3
"""Exit code: the proof is the gate of routes."""


def prove(
    file: Annotated[
        Path | None, typer.Argument(help="YAML to prove before it is published [default: what is in force]")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Whose routes [default: of all; needed for a file]")
    ] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """What any key can reach with any headers. Exit code 3, with requests that show it, if one errs."""
    from server.assembly.rules import read_rules

    if file is not None and tenant is None:
        raise typer.BadParameter("a file holds the routes of one tenant: name it", param_hint="--tenant")
    catalog = place(workspace).catalog
    if file is not None and tenant is not None:
        rules = read_rules(file, tenant)
        proof = catalog.prove_routing(tenant, routes=rules.routes, headers=rules.headers)
    else:
        proof = catalog.prove_routing(tenant)
    if json:
        render.data(proof.model_dump(mode="json") | {"holds": proof.holds})
    else:
        _show(proof)
    if not proof.holds:
        raise typer.Exit(REFUSED)


def _show(proof: "Proof") -> None:
    rows = _rows(proof.cases)
    if rows:
        render.table("", ["tenant", "model", "headers", "reaches", "policy", "combinations"], rows)
    for finding in proof.findings:
        render.text(f"{finding.severity}: {finding.why} [{finding.flaw}]")
        if finding.headers is not None and finding.model:
            render.text(f"  {_curl(finding)}")
    if proof.more:
        render.text(f"… and {proof.more} more")
    cases = f"{proof.combinations} combinations in {len(proof.cases)} cases"
    if proof.holds:
        render.text(f"proved: {cases}, no foreign adapter, no shadowed rule, nothing falls through")
    else:
        render.text(f"refused: {cases}, {len(proof.errors)} of them astray or unanswered")


def _rows(cases: "tuple[Case, ...]") -> list[list[str]]:
    """One row a rule, and one a model for all that is refused."""
    rows: list[list[str]] = []
    refused: dict[tuple[str, str], int] = defaultdict(int)
    for case in cases:
        if case.rule is None or case.policy is None:
            refused[case.tenant, case.model] += case.combinations
            continue
        headers = ", ".join(f"{name}: {value}" for name, value in case.headers) or "(none)"
        reaches = f"{case.adapter}:{case.alias} ({case.rule})"
        rows.append([case.tenant, case.model, headers, reaches, case.policy.short, str(case.combinations)])
    rows += [
        [tenant, model, "any others", "refused", "", str(count)] for (tenant, model), count in refused.items()
    ]
    return sorted(rows, key=lambda row: (row[0], row[1], row[3] == "refused"))


def _curl(finding: "Finding") -> str:
    """A line to paste; KEY is any key of the tenant, ROUTER where the router listens."""
    body = f'{{"model": "{finding.model}", "messages": [{{"role": "user", "content": "hello"}}]}}'
    sent = [("Authorization", f"Bearer KEY-OF-{finding.tenant}"), ("Content-Type", "application/json")]
    headers = " ".join(
        f"-H {shlex.quote(f'{name}: {value}')}" for name, value in (*sent, *(finding.headers or ()))
    )
    return f"curl http://ROUTER/v1/chat/completions {headers} -d {shlex.quote(body)}"
