"""What is kept of questions and answers beside the record, as the policy says (docs/guides/policies.md)."""

from router.retention.kept import Kept
from router.retention.retainer import Retainer, plain_digests
from router.retention.tenant_keys import TenantKey, TenantKeys
from router.retention.texts import TextLog, kept

__all__ = ["Kept", "Retainer", "TenantKey", "TenantKeys", "TextLog", "kept", "plain_digests"]
