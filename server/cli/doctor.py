"""``tenon doctor``"""

import sys

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(json: Json = False, workspace: At = None) -> None:
    """Check the machine, the installation and the workspace; each finding says what to do."""
    from server.assembly.diagnosis import diagnose

    findings = diagnose(root(workspace))
    if json:
        render.data([{"check": f.check, "ok": f.ok, "found": f.found, "hint": f.hint} for f in findings])
    else:
        rows = [["ok" if f.ok else "FAIL", f.check, f.found, "" if f.ok else f.hint] for f in findings]
        render.table("", ["", "check", "found", "what to do"], rows)
    if not all(finding.ok for finding in findings):
        sys.exit(1)
