import math

import pytest

from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.evidence import GatePolicy, Metric, Report, Rule, Verdict
from registry.gates.decide import decide

VERSION = Digest.of(b"version")
AT_LEAST = GatePolicy(rules=(Rule(metric="policy", at_least=0.9),))


def metric(value: float, *, n: int = 96, stderr: float = 0.01) -> Metric:
    return Metric(value=value, n=n, stderr=stderr)


def report(
    value: float = 0.95, *, base: float | None = 0.4, version: Digest = VERSION, active: bool = True,
    stderr: float = 0.01, suite: bytes = b"suite",
) -> Report:  # fmt: skip
    return Report(
        tenant="bank_a",
        adapter="assistant",
        version=version,
        base=Digest.of(b"base"),
        suite=Digest.of(suite),
        metrics={"policy": metric(value, stderr=stderr)},
        baseline={} if base is None else {"policy": metric(base)},
        adapter_active=active,
    )


def judge(policy: GatePolicy, *reports: Report) -> Verdict:
    return decide(policy, version=VERSION, reports=reports)


def test_a_rule_that_holds_passes_with_its_figures() -> None:
    verdict = judge(AT_LEAST, report(0.95))
    assert verdict.passed
    assert verdict.reasons == ("policy 0.95 (n=96, stderr 0.01): pass: at least 0.9 wanted",)
    assert (verdict.version, verdict.policy) == (VERSION, AT_LEAST.identity())
    assert verdict.reports == (report(0.95).identity(),)


def test_a_rule_that_does_not_hold_refuses_with_its_figures() -> None:
    verdict = judge(AT_LEAST, report(0.85))
    assert not verdict.passed
    assert verdict.reasons == ("policy 0.85 (n=96, stderr 0.01): refuse: at least 0.9 wanted",)


def test_the_bound_itself_is_enough() -> None:
    assert judge(AT_LEAST, report(0.9)).passed


def test_one_refusal_among_many_passes_is_a_refusal() -> None:
    rules = (*AT_LEAST.rules, Rule(metric="policy", at_least=0.99))
    verdict = judge(GatePolicy(rules=rules), report(0.95))
    assert not verdict.passed
    assert [": pass:" in reason for reason in verdict.reasons] == [True, False]


@pytest.mark.parametrize("value", [0.895, 0.905])
def test_a_value_within_one_standard_error_says_so(value: float) -> None:
    near = judge(AT_LEAST, report(value))
    assert near.passed is (value >= 0.9)
    assert "within one standard error" in near.reasons[0]
    assert "within one standard error" not in judge(AT_LEAST, report(value, stderr=0.001)).reasons[0]


def test_a_gain_over_the_base() -> None:
    policy = GatePolicy(rules=(Rule(metric="policy", over_base=0.3),))
    assert judge(policy, report(0.95, base=0.4)).passed
    small = judge(policy, report(0.95, base=0.7))
    assert not small.passed
    assert "gain +0.25 over the base's 0.7 (n=96, stderr 0.01)" in small.reasons[0]
    near = judge(policy, report(0.95, base=0.64))
    assert near.passed
    assert "within one standard error" in near.reasons[0]


def test_both_bounds_of_a_rule_must_hold() -> None:
    policy = GatePolicy(rules=(Rule(metric="policy", at_least=0.9, over_base=0.3),))
    assert judge(policy, report(0.95, base=0.5)).passed
    assert not judge(policy, report(0.95, base=0.9)).passed
    assert not judge(policy, report(0.89, base=0.1)).passed


def test_an_empty_policy_refuses() -> None:
    verdict = judge(GatePolicy(), report())
    assert not verdict.passed
    assert "no rules" in verdict.reasons[0]


def test_no_report_about_this_version_refuses() -> None:
    other = report(version=Digest.of(b"another version"))
    for reports in ((), (other,)):
        verdict = judge(AT_LEAST, *reports)
        assert not verdict.passed
        assert verdict.reasons == ("no report measured this version",)
        assert verdict.reports == ()


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule(metric="speed", at_least=0.0), "no report measured it"),
        (Rule(metric="policy"), "no bound"),
        (Rule(metric="policy", over_base=0.0), "no usable figure of the base"),
    ],
)
def test_what_cannot_be_judged_refuses(rule: Rule, reason: str) -> None:
    verdict = judge(GatePolicy(rules=(rule,)), report(base=None))
    assert not verdict.passed
    assert reason in verdict.reasons[0]


def test_a_report_that_may_have_measured_the_base_refuses() -> None:
    verdict = judge(AT_LEAST, report(0.95), report(0.97, active=False, suite=b"other"))
    assert not verdict.passed
    assert "active" in verdict.reasons[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_figures_that_are_not_finite_refuse(value: float) -> None:
    for bad in (report(value), report(base=value)):
        verdict = judge(AT_LEAST, bad)
        assert not verdict.passed
        assert "NaN or infinite" in verdict.reasons[0]
        verdict.canonical()


def test_a_bad_report_is_not_hidden_by_a_good_one() -> None:
    good, bad = report(0.99, suite=b"easy"), report(0.5, suite=b"hard")
    for reports in ((good, bad), (bad, good)):
        verdict = judge(AT_LEAST, *reports)
        assert not verdict.passed
        assert verdict.reasons[0].startswith("policy 0.5 ")
        assert verdict.reasons[0].endswith("(worst of 2 reports)")
        assert verdict.reports == tuple(sorted({good.identity(), bad.identity()}))


def test_a_policy_without_a_canonical_form_is_an_error() -> None:
    with pytest.raises(InvalidDocument):
        judge(GatePolicy(rules=(Rule(metric="policy", at_least=math.nan),)), report())
