"""What a person would want to know of training data before a night is spent on it. One file a check."""

from trainer.datasets.audit.audit import Audit, audit, unreadable
from trainer.datasets.audit.finding import Finding, Severity
from trainer.datasets.audit.side import TokenCount

__all__ = ["Audit", "Finding", "Severity", "TokenCount", "audit", "unreadable"]
