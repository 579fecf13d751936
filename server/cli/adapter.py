"""``tenon adapter``"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from server.cli import render
from server.cli.options import At, Json, root


def install(app: typer.Typer) -> None:
    group = typer.Typer(help="Versions of tenants' adapters.", no_args_is_help=True)
    group.command("push")(push)
    group.command("pull")(pull)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("merge")(merge)
    app.add_typer(group, name="adapter")


def push(
    folder: Annotated[Path, typer.Argument(help="PEFT folder: adapter_config.json and weights")],
    name: Annotated[str, typer.Option("--as", help="tenant/adapter")],
    base: Annotated[str, typer.Option("--base", help="Registered base it was trained on")],
    probes: Annotated[Path | None, typer.Option("--probes", help="Evaluation cases to probe it with")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """Check an adapter and store it as a new version. Nothing goes live by a push."""
    from registry.manifests import Provenance
    from registry.names import AdapterName
    from server.assembly import bases, uploads
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    place = find(root(workspace))
    catalog = open_catalog(place)
    adapter = AdapterName.parse(name)
    digest, document, _ = catalog.base(base)
    fingerprint = uploads.fingerprint(folder, digest, document, bases.folder_of(place, document.name), probes)
    version = catalog.push(
        adapter,
        folder,
        base=digest,
        fingerprint=fingerprint,
        provenance=Provenance(method="upload"),
        actor="cli",
    )
    if json:
        render.data({"version": version, "distance_to_base": fingerprint.distance_to_base})
    else:
        render.text(version)
        render.note(f"Stored as {adapter}; put it live with: tenon promote {adapter}@{version}")


def pull(
    ref: Annotated[str, typer.Argument(help="tenant/adapter:alias or tenant/adapter@sha256:…")],
    folder: Annotated[Path, typer.Argument(help="New folder to write")],
    workspace: At = None,
) -> None:
    """Write a version's files, every byte checked."""
    from registry.names import Ref
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    catalog = open_catalog(find(root(workspace)))
    manifest = catalog.export(catalog.resolve(Ref.parse(ref)), folder)
    render.note(f"{len(manifest.files)} files of {manifest.identity().short} written to {folder}")


def merge(
    ref: Annotated[str, typer.Argument(help="tenant/adapter:alias or tenant/adapter@sha256:…")],
    folder: Annotated[Path, typer.Argument(help="New folder to write")],
    dtype: Annotated[
        Literal["float32", "bfloat16"], typer.Option("--dtype", help="Precision of the written weights")
    ] = "float32",
    json: Json = False,
    workspace: At = None,
) -> None:
    """Write the base with the version merged into its weights, as a folder that tenon base add takes."""
    from registry.names import Ref
    from server.assembly.catalog import open_catalog
    from server.assembly.merging import merge_version
    from server.workspace import find

    place = find(root(workspace))
    version = merge_version(place, open_catalog(place), Ref.parse(ref), folder, precision=dtype)
    if json:
        render.data({"version": version, "folder": str(folder), "dtype": dtype})
    else:
        render.note(f"{version.short} and its base written to {folder}; register it with: tenon base add")


def list_(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's")] = None,
    json: Json = False,
    workspace: At = None,
) -> None:
    """List adapters and their versions."""
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    catalog = open_catalog(find(root(workspace)))
    rows = [(name, item) for name in catalog.adapters(tenant) for item in catalog.versions(name)]
    if json:
        render.data(
            [
                {"adapter": str(n), "version": i.version, "pushed_at": i.pushed_at, "state": i.state}
                for n, i in rows
            ]
        )
    else:
        render.table(
            "",
            ["adapter", "version", "pushed", "state"],
            [[str(n), i.version.short, i.pushed_at, i.state] for n, i in rows],
        )


def show(
    ref: Annotated[str, typer.Argument(help="tenant/adapter:alias or tenant/adapter@sha256:…")],
    json: Json = False,
    workspace: At = None,
) -> None:
    """Show a version: files, lineage, evidence, and where it is attested."""
    from registry.names import Ref
    from server.assembly.catalog import open_catalog
    from server.workspace import find

    catalog = open_catalog(find(root(workspace)))
    version = catalog.resolve(Ref.parse(ref))
    manifest, reports = catalog.manifest(version), catalog.reports(version)
    slots = [slot for slot in catalog.snapshot().slots if slot.version == version]
    if json:
        render.data(
            {
                "version": version,
                "manifest": manifest.model_dump(mode="json"),
                "reports": [report.model_dump(mode="json") for report in reports],
                "attested_on": [slot.model_dump(mode="json") for slot in slots],
            }
        )
        return
    lora = manifest.lora
    rows = [
        ["version", version],
        ["base", manifest.base],
        [
            "lora",
            f"rank {lora.rank}, alpha {lora.alpha:g}, {', '.join(lora.targets)}",
        ],
        ["made by", manifest.provenance.method],
        *[["file", f"{file.path}  {file.size:,} bytes  {file.digest.short}"] for file in manifest.files],
        *[
            [
                "evidence",
                f"{name} {m.value:.3f} ± {m.stderr:.3f} (base {r.baseline[name].value:.3f}, n={m.n})",
            ]
            for r in reports
            for name, m in sorted(r.metrics.items())
        ],
        *[["attested on", f"{slot.engine} (boot {slot.boot})"] for slot in slots],
    ]
    render.table(f"{manifest.tenant}/{manifest.adapter}", ["what", "value"], rows)
