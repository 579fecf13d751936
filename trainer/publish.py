"""A finished run into the registry: the version and the signed report about it. Nothing goes live by this."""

from dataclasses import dataclass

from registry.digests import Digest
from trainer.evaluation.report import make_report, sign_report
from trainer.ports import Catalog, ReportSigner
from trainer.trained import TrainedRun


@dataclass(frozen=True, slots=True)
class Published:
    version: Digest
    report: Digest


def publish(run: TrainedRun, *, catalog: Catalog, signer: ReportSigner, actor: str) -> Published:
    """Push the adapter, then file what was measured of that version. Twice gives the same digests."""
    version = catalog.push(
        run.name,
        run.adapter,
        base=run.plan.base,
        fingerprint=run.fingerprint,
        provenance=run.plan.provenance(),
        actor=actor,
    )
    report = make_report(
        run.name,
        version=version,
        base=run.plan.base,
        suite=run.plan.suite,
        metrics=run.metrics,
        baseline=run.baseline,
        adapter_active=run.adapter_active,
    )
    return Published(version, catalog.file_report(sign_report(report, signer), actor=actor))
