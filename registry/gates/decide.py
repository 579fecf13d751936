"""May this version go live? Rules over signed reports, answered with the figures."""

import math
from collections.abc import Sequence

from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.evidence import GatePolicy, Metric, Report, Rule, Verdict


def decide(policy: GatePolicy, *, version: Digest, reports: Sequence[Report]) -> Verdict:
    """Every rule must hold in every report about ``version`` that measured its metric, and at least one did.

    Refuses whatever it cannot judge: no rules, no report, numbers that are not finite, a rule without bound.
    Whether the reports' signatures hold is for the caller to check before. Raises InvalidDocument only
    when the policy itself has no canonical form (a NaN bound).
    """
    about = [report for report in reports if report.version == version]
    findings: list[tuple[bool, str]] = []
    if not policy.rules:
        findings.append((False, f"the gate {policy.name!r} has no rules, so it allows nothing"))
    if not about:
        findings.append((False, "no report measured this version"))
    identities: set[Digest] = set()
    for report in about:
        try:
            identities.add(report.identity())
        except InvalidDocument:
            findings.append((False, "a report holds NaN or infinite figures, so nothing in it counts"))
    if any(not report.adapter_active for report in about):
        findings.append(
            (False, "a report could not show that the adapter was active: it may have measured the base")
        )
    if about:
        findings += [_worst(rule, about) for rule in policy.rules]
    return Verdict(
        passed=bool(findings) and all(passed for passed, _ in findings),
        reasons=tuple(reason for _, reason in findings),
        version=version,
        policy=policy.identity(),
        reports=tuple(sorted(identities)),
    )


def _worst(rule: Rule, reports: Sequence[Report]) -> tuple[bool, str]:
    """The finding of the report that is worst for the rule; a report without the metric has no say."""
    if rule.at_least is None and rule.over_base is None:
        return False, f"{rule.metric}: refuse: the rule has no bound"
    measured = [report for report in reports if rule.metric in report.metrics]
    if not measured:
        return False, f"{rule.metric}: refuse: no report measured it"
    _, passed, reason = min((_judge(rule, report) for report in measured), key=lambda item: item[0])
    suffix = f" (worst of {len(measured)} reports)" if len(measured) > 1 else ""
    return passed, f"{reason}{suffix}"


def _judge(rule: Rule, report: Report) -> tuple[float, bool, str]:
    """(margin to the tighter bound, passed, sentence)."""
    metric, base = report.metrics[rule.metric], report.baseline.get(rule.metric)
    figures = f"{rule.metric} {_figures(metric)}"
    if not _finite(metric):
        return -math.inf, False, f"{rule.metric}: refuse: its figures are not finite numbers"
    margins: list[float] = []
    conditions: list[str] = []
    if rule.at_least is not None:
        margins.append(metric.value - rule.at_least)
        conditions.append(_condition(f"at least {rule.at_least:g}", margins[-1], metric.stderr))
    if rule.over_base is not None:
        if base is None or not _finite(base):
            return -math.inf, False, f"{figures}: refuse: no usable figure of the base on the same cases"
        gain = metric.value - base.value
        # As if the two were independent: on the same cases they rather move together, so this is cautious.
        margins.append(gain - rule.over_base)
        conditions.append(
            f"gain {gain:+.4g} over the base's {_figures(base)}, "
            + _condition(f"at least {rule.over_base:+g}", margins[-1], math.hypot(metric.stderr, base.stderr))
        )
    passed = all(margin >= 0 for margin in margins)
    return min(margins), passed, f"{figures}: {'pass' if passed else 'refuse'}: {'; '.join(conditions)}"


def _condition(wanted: str, margin: float, stderr: float) -> str:
    near = "; within one standard error of the bound, so chance may have decided"
    return f"{wanted} wanted{near if abs(margin) <= stderr else ''}"


def _finite(metric: Metric) -> bool:
    return math.isfinite(metric.value) and math.isfinite(metric.stderr)


def _figures(metric: Metric) -> str:
    return f"{metric.value:.4g} (n={metric.n}, stderr {metric.stderr:.2g})"
