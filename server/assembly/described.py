"""All that a registry knows of a version, from wherever it is, to be read or compared."""

from dataclasses import dataclass
from typing import Any

from registry.catalog.local.catalog import LocalCatalog
from registry.digests import Digest
from registry.evidence import Report
from registry.fingerprint import Fingerprint
from registry.manifests import Manifest
from registry.models import Slot
from registry.names import AdapterName, Ref
from server.assembly.place import Catalog


@dataclass(frozen=True, slots=True)
class Described:
    name: AdapterName
    version: Digest
    state: str
    pushed_at: str
    aliases: tuple[str, ...]
    manifest: Manifest
    signers: tuple[str, ...]
    """Ids of the keys that signed the manifest; the registry accepted each as a trainer's."""
    reports: tuple[Report, ...]
    slots: tuple[Slot, ...]
    fingerprint: Fingerprint | None
    """Pushed with it or filed later."""

    def data(self) -> dict[str, Any]:
        return {
            "adapter": str(self.name),
            "version": self.version,
            "state": self.state,
            "pushed_at": self.pushed_at,
            "aliases": list(self.aliases),
            "manifest": self.manifest.model_dump(mode="json"),
            "signed_by": list(self.signers),
            "reports": [report.model_dump(mode="json") for report in self.reports],
            "fingerprint": _recognised(self.fingerprint),
            "attested_on": [slot.model_dump(mode="json") for slot in self.slots],
        }


@dataclass(frozen=True, slots=True)
class Line:
    """One thing of two versions; None where a version has no such thing."""

    what: str
    first: str | None
    second: str | None
    metric: bool = False

    @property
    def differs(self) -> bool:
        return self.first != self.second


def describe(catalog: Catalog, ref: Ref) -> Described:
    """Raises AliasNotFound, VersionNotFound."""
    version = catalog.resolve(ref)
    summary = catalog.version(version)
    if isinstance(catalog, LocalCatalog):
        slots = catalog.slots(version)
    else:
        slots = catalog.view(ref.name, version).slots
    signed = (signature.keyid for one in catalog.signatures(version) for signature in one.signatures)
    return Described(
        name=ref.name,
        version=version,
        state=summary.state,
        pushed_at=summary.pushed_at,
        aliases=summary.aliases,
        manifest=catalog.manifest(version),
        signers=tuple(dict.fromkeys(signed)),
        reports=catalog.reports(version),
        slots=slots,
        fingerprint=catalog.fingerprint(version),
    )


def _recognised(fingerprint: Fingerprint | None) -> dict[str, Any] | None:
    if fingerprint is None:
        return None
    return {
        "digest": fingerprint.identity(),
        "probes": len(fingerprint.probes),
        "distance_to_base": fingerprint.distance_to_base,
        "noise": dict(fingerprint.noise),
        "weak": list(fingerprint.weak),
        "alike": {dtype: list(versions) for dtype, versions in fingerprint.alike.items()},
    }


def compare(first: Described, second: Described) -> list[Line]:
    """Everything of either, in one order; what is equal too."""
    mine, theirs = _facts(first), _facts(second)
    lines = [Line(what, mine.get(what), theirs.get(what)) for what in dict.fromkeys([*mine, *theirs])]
    ours, others = _metrics(first), _metrics(second)
    return lines + [
        Line(what, ours.get(what), others.get(what), metric=True) for what in sorted({*ours, *others})
    ]


def _facts(found: Described) -> dict[str, str]:
    manifest, come = found.manifest, found.manifest.provenance
    facts = {
        "adapter": str(found.name),
        "state": found.state,
        "base": manifest.base,
        "rank": str(manifest.lora.rank),
        "alpha": f"{manifest.lora.alpha:g}",
        "rslora": str(manifest.lora.rslora).lower(),
        "targets": ", ".join(manifest.lora.targets),
        "contract": manifest.contract.digest,
        "fingerprint": found.fingerprint.identity() if found.fingerprint else None,
        "made by": come.method,
        "recipe": come.recipe,
        "plan": come.plan,
        "parent": come.parent,
        "teacher": come.teacher,
        **{f"{data.role} data": data.digest for data in come.data},
        **dict(come.inputs),
        **{f"environment {name}": version for name, version in come.environment.items()},
        **{f"file {file.path}": file.digest for file in manifest.files},
    }
    return {what: str(value) for what, value in facts.items() if value is not None}


def _metrics(found: Described) -> dict[str, str]:
    """Of each suite by itself: figures of different questions do not compare."""
    return {
        f"{name} on {report.suite.short}": f"{metric.value:.4g} ± {metric.stderr:.2g} (n={metric.n})"
        for report in found.reports
        for name, metric in report.metrics.items()
    }
