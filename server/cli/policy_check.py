"""``tenon policy check``"""

from pathlib import Path
from typing import Annotated

import typer

from server.cli import render
from server.cli.options import Json


def check(
    file: Annotated[Path, typer.Argument(help="JSON schema of answers, or a policy in YAML")],
    json: Json = False,
) -> None:
    """Can all of it be kept: every keyword enforced by engines, no part against another? Exit code 1 if not.
    Nothing is published."""
    from registry.contradictions import contradictions
    from registry.policies import lint_text
    from server.assembly.policy_file import read_policy, read_schema

    others: list[str] = []
    if file.suffix in (".yaml", ".yml"):
        policy = read_policy(file, tenant="check", name="check")
        faults = lint_text(policy.json_schema) if policy.json_schema is not None else ()
        # Examples are tried on the schema, so it must be one.
        others = list(contradictions(policy)) if not faults else []
    else:
        faults = lint_text(read_schema(file))
    if json:
        told = [{"pointer": fault.pointer, "keyword": fault.keyword, "why": fault.why} for fault in faults]
        render.data({"enforced": not faults and not others, "faults": told, "contradictions": others})
    else:
        found = [*map(str, faults), *others]
        for fault in found:
            render.text(fault)
        render.text(f"refused: {len(found)} faults" if found else "enforced: every keyword")
    if faults or others:
        raise typer.Exit(1)
