"""``tenon adapter show``"""

from typing import TYPE_CHECKING, Annotated

import typer

from server.cli import render
from server.cli.options import At, Json, place

if TYPE_CHECKING:
    from registry.promotions import Because
    from server.assembly.described import Described


def show(
    ref: Annotated[str, typer.Argument(help="tenant/adapter:alias or tenant/adapter@sha256:…")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show a version: files, lineage, signatures, evidence, aliases, and where it is loaded."""
    from registry.names import Ref
    from server.assembly.described import describe

    catalog = place(workspace).catalog
    found = describe(catalog, Ref.parse(ref))
    because = catalog.readiness(found.name, found.version).because
    if json:
        render.data(found.data() | {"because": because})
    else:
        render.table(str(found.name), ["what", "value"], _rows(found, because))


def _rows(found: "Described", because: "Because | None") -> list[list[str]]:
    from registry.catalog.preparations import TOO_LARGE
    from server.cli.strength import sentence

    manifest, lora = found.manifest, found.manifest.lora
    come = manifest.provenance
    lineage = (
        ("recipe", come.recipe),
        ("plan", come.plan),
        *((f"{data.role} data", f"{data.digest} ({data.rows} rows)") for data in come.data),
        ("parent", come.parent),
        ("teacher", come.teacher),
        *((role, digest) for role, digest in sorted(come.inputs.items())),
        ("environment", ", ".join(f"{name} {v}" for name, v in sorted(come.environment.items())) or None),
    )
    return [
        ["version", found.version],
        ["state", found.state],
        ["pushed", found.pushed_at],
        ["aliases", ", ".join(found.aliases) or "none"],
        ["base", manifest.base],
        ["lora", f"rank {lora.rank}, alpha {lora.alpha:g}, {', '.join(lora.targets)}"],
        *([["engines", f"none is for adapters of its rank: {TOO_LARGE}"]] if because == "rank" else []),
        ["fingerprint", sentence(found.fingerprint) if found.fingerprint else "none: not servable"],
        ["made by", come.method],
        *[[what, value] for what, value in lineage if value],
        *[["file", f"{file.path}  {file.size:,} bytes  {file.digest.short}"] for file in manifest.files],
        *[["signed by", signer] for signer in found.signers],
        *[
            [
                "evidence",
                f"{name} {m.value:.3f} ± {m.stderr:.3f} (base {r.baseline[name].value:.3f}, n={m.n})",
            ]
            for r in found.reports
            for name, m in sorted(r.metrics.items())
            if name in r.baseline
        ],
        *[["attested on", f"{slot.engine} (boot {slot.boot})"] for slot in found.slots],
    ]
