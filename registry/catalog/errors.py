"""What the catalog refuses, beyond the kernel's errors."""

from registry.errors import Conflict, Corrupt, InvalidInput, NotFound, Refused


class FingerprintInvalid(InvalidInput):
    code, status = "fingerprint_invalid", 422
    hint = "make the fingerprint again, from this adapter on this base"


class ContractInvalid(InvalidInput):
    code, status = "contract_invalid", 422
    hint = "make the contract from the same base folder"


class ReportInvalid(InvalidInput):
    code, status = "report_invalid", 422


class ReferenceInvalid(InvalidInput):
    code, status = "reference_invalid", 422
    hint = "make it again with: tenon adapter reference"


class AttestationInvalid(InvalidInput):
    code, status = "attestation_invalid", 422
    hint = "attest again: the engine or the version is not the one that was measured"


class RecordHeadInvalid(InvalidInput):
    code, status = "record_head_invalid", 422
    hint = "the router is older than the control plane: bring it to the same version"


class SignerInvalid(InvalidInput):
    code = "signer_invalid"


class KeyInvalid(InvalidInput):
    code = "key_invalid"


class ExpiryInvalid(InvalidInput):
    code = "expiry_invalid"
    hint = "name a moment in the future, like 2026-01-31T12:00:00Z"


class CanaryInvalid(InvalidInput):
    code, status = "canary_invalid", 422
    hint = "an alias has one stable version and at most two canaries, together below 100 percent"


class ShadowInvalid(InvalidInput):
    code, status = "shadow_invalid", 422
    hint = "a shadow is a version that neither serves as stable nor as a canary of the alias"


class UsageInvalid(InvalidInput):
    code, status = "usage_invalid", 422
    hint = "nothing of the batch was counted"


class PeriodInvalid(InvalidInput):
    code, status = "period_invalid", 422
    hint = "ask from an earlier day to a later one, both like 2026-01-31"


class RecordsInvalid(InvalidInput):
    code, status = "records_invalid", 422
    hint = "nothing of the batch was kept: tenon log verify tells what is wrong with the router's chain"


class RecordsMissing(Conflict):
    code = "records_missing"
    hint = "ship a writer's records in their order, from where the registry says that it is"


class SignerNotFound(NotFound):
    code = "signer_not_found"


class ProposalNotFound(NotFound):
    code = "proposal_not_found"


class EngineNotFound(NotFound):
    code = "engine_not_found"
    hint = "announce the engine first"


class EngineGiven(Conflict):
    """An engine belongs to one tenant at a time."""

    code = "engine_given"
    hint = "choose another engine, or give this one back first (tenon fleet shows whose is whose)"


class EngineNeeded(Conflict):
    """Nobody else serves what would end."""

    code = "engine_needed"
    hint = "wait until other engines are attested for the same versions"


class SlotsTaken(Conflict):
    """Every engine keeps one device slot for those that are not pinned."""

    code = "slots_taken"
    hint = "add an engine, start engines with more slots (--max-loras), or give the tenant one of its own"


class AnnouncementInvalid(InvalidInput):
    code, status = "announcement_invalid", 422
    hint = "an agent signs what it announces with its own engine key"


class EngineHeld(Conflict):
    """About a name that another key's engine has."""

    code = "engine_held"
    hint = "stop that engine first (down, or silent for half a minute), or give this one another name"


class EngineReplaced(Conflict):
    """About a process that a later boot has replaced, or that claims to have changed while it runs."""

    code = "engine_replaced"
    hint = "start the engine again: every start is a new boot"


class EngineDown(Conflict):
    """About the newest boot of an engine, that was taken for dead or said goodbye: nothing replaced it."""

    code = "engine_down"
    hint = "an engine that still runs announces the same boot again, and then every finding"


class KeyEnded(Conflict):
    code = "key_ended"
    hint = "issue a new key"


class TenantMoved(Conflict):
    code = "tenant_changed"
    hint = "somebody changed the tenant meanwhile: look at it again, then retry"


class SignerDistrusted(Conflict):
    code = "signer_distrusted"
    hint = "make a new signing key"


class ApprovalRequired(Conflict):
    code = "approval_required"
    hint = "propose the promotion, and have somebody else approve it"


class ApprovalUnneeded(Conflict):
    code = "approval_unneeded"
    hint = "promote it"


class ProposalClosed(Conflict):
    code = "proposal_closed"
    hint = "look at the alias, then propose again"


class PromotionNotReady(Conflict):
    """``facts`` say how many engines are to hold the version, and how many do; never which. The message says
    which, and what failed there, only to whoever may know the engines by name."""

    code = "promotion_not_ready"
    hint = (
        "nothing has moved: prepare the version and wait until all engines hold it "
        "(tenon promote and tenon rollback do)"
    )


class UsageRegressed(Conflict):
    """A writer sent a batch that it had already left behind, or the same one with other figures."""

    code = "usage_regressed"
    hint = "GET /api/v1/usage/{writer} tells how far a writer was counted"


class NothingToRollBack(Conflict):
    code = "nothing_to_roll_back"
    hint = "promote a version instead"


class RecordHeadRegressed(Conflict):
    """A writer signed what does not continue the records that the log knows of it."""

    code = "record_head_regressed"
    hint = (
        "the writer's records were lost or put back, or two routers have one TENON_WRITER: "
        "give one of them a new name"
    )


class ApprovalRefused(Refused):
    code = "approval_refused"
    hint = (
        "somebody else must approve: neither who proposed it, nor who approved already, nor a key of theirs"
    )


class ProtectionWeakened(Refused):
    code = "protection_weakened"
    hint = "a tenant may add protections; taking one away is for the platform"


class ReleaseSignatureRequired(Refused):
    code = "release_signature_required"
    hint = "sign exactly this move and epoch with a trusted release key"


class VersionUnfingerprinted(Refused):
    code = "version_unfingerprinted"
    hint = "nobody could tell this version from another in an engine: push it again with a fingerprint"


class LogTruncated(Corrupt):
    code, status = "log_truncated", 409
    hint = "the reader knows more than the registry: the registry was restored from an older copy"


class IdempotencyKeyReused(InvalidInput):
    code, status = "idempotency_key_reused", 422
    hint = "one key is for one request: make a new key for another one"


class IdempotencyInProgress(Conflict):
    code = "idempotency_in_progress"
    hint = "the first request with this key is still being answered: ask again in a second"
