"""What was measured, so that a gate can decide on it."""

from typing import Literal

from pydantic import Field

from registry.canonical import Document
from registry.digests import Digest
from registry.names import Name


class Metric(Document):
    value: float
    n: int = Field(ge=1)
    stderr: float = Field(ge=0)


class Report(Document):
    """Metrics of one version on one suite, beside those of the bare base on the same cases.

    Measured on generated answers, never on training rewards (docs/concepts/evidence.md).
    """

    kind: Literal["tenon.report/v1"] = "tenon.report/v1"
    tenant: Name
    adapter: Name
    version: Digest
    base: Digest
    suite: Digest
    metrics: dict[str, Metric]
    baseline: dict[str, Metric]
    adapter_active: bool
    """Proof that the adapter and not the base was measured: its outputs differ (lm-eval #2433)."""


class Rule(Document):
    """One condition of a gate on one metric; at least one bound must be given."""

    metric: str
    at_least: float | None = None
    over_base: float | None = None
    """Required gain over the base's value on the same cases."""


class GatePolicy(Document):
    """All rules must hold. An empty policy refuses."""

    name: Name = "default"
    rules: tuple[Rule, ...] = ()


class Verdict(Document):
    passed: bool
    reasons: tuple[str, ...]
    """One sentence a rule, pass or refuse, with the figures."""
    version: Digest
    policy: Digest
    reports: tuple[Digest, ...]
