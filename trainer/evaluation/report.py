"""What was measured, as the signed document that a gate decides on."""

from collections.abc import Mapping

from registry.digests import Digest
from registry.evidence import Metric, Report
from registry.names import AdapterName
from registry.signing.envelope import Envelope
from registry.signing.types import REPORT
from trainer.ports import ReportSigner


def make_report(
    name: AdapterName,
    *,
    version: Digest,
    base: Digest,
    suite: Digest,
    metrics: Mapping[str, Metric],
    baseline: Mapping[str, Metric],
    adapter_active: bool,
) -> Report:
    return Report(
        tenant=name.tenant,
        adapter=name.adapter,
        version=version,
        base=base,
        suite=suite,
        metrics=dict(metrics),
        baseline=dict(baseline),
        adapter_active=adapter_active,
    )


def sign_report(report: Report, signer: ReportSigner) -> Envelope:
    """Signed in its canonical bytes: those are what its digest names."""
    return signer.sign(REPORT, report.canonical())
