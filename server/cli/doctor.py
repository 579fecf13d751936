"""``tenon doctor``"""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from server.cli import render
from server.cli.options import At, Json, root

if TYPE_CHECKING:
    from server.assembly.diagnosis import Finding


def install(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(json: Json = False, workspace: At = None) -> None:
    """Check the machine, the installation and the workspace; each finding says what to do.

    Exit code 1 where something failed; a warning (what an engine does not serve yet, or at all) is none.
    """
    from server.assembly.diagnosis import diagnose

    findings = diagnose(root(workspace))
    if json:
        render.data([asdict(each) for each in findings])
    else:
        rows = [[_verdict(f), f.check, f.found, "" if f.ok else f.hint] for f in findings]
        render.table("", ["", "check", "found", "what to do"], rows)
    if not all(finding.ok or finding.warning for finding in findings):
        sys.exit(1)


def _verdict(finding: "Finding") -> str:
    return "ok" if finding.ok else "warn" if finding.warning else "FAIL"
