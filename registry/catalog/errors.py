"""What the catalog refuses, beyond the kernel's errors."""

from registry.errors import Conflict, Corrupt, InvalidInput, NotFound, Refused


class RouteInvalid(InvalidInput):
    code = "route_invalid"
    hint = "nothing was changed: correct the routes and send all of them again"


class FingerprintInvalid(InvalidInput):
    code, status = "fingerprint_invalid", 422
    hint = "make the fingerprint again, from this adapter on this base"


class ContractInvalid(InvalidInput):
    code, status = "contract_invalid", 422
    hint = "make the contract from the same base folder"


class ReportInvalid(InvalidInput):
    code, status = "report_invalid", 422


class AttestationInvalid(InvalidInput):
    code, status = "attestation_invalid", 422
    hint = "attest again: the engine or the version is not the one that was measured"


class RecordHeadInvalid(InvalidInput):
    code, status = "record_head_invalid", 422


class SignerInvalid(InvalidInput):
    code = "signer_invalid"


class EngineNotFound(NotFound):
    code = "engine_not_found"
    hint = "announce the engine first"


class EngineReplaced(Conflict):
    """About a process that a later boot has replaced, or that claims to have changed while it runs."""

    code = "engine_replaced"
    hint = "start the engine again: every start is a new boot"


class NothingToRollBack(Conflict):
    code = "nothing_to_roll_back"
    hint = "promote a version instead"


class RecordHeadRegressed(Conflict):
    """A writer signed a position that it had already left behind, or the same position twice differently."""

    code = "record_head_regressed"
    hint = "the writer's records were cut off or restored: look at them with tenon log verify"


class VersionUnfingerprinted(Refused):
    code = "version_unfingerprinted"
    hint = "nobody could tell this version from another in an engine: push it again with a fingerprint"


class LogTruncated(Corrupt):
    code = "log_truncated"
    hint = "the reader knows more than the registry: the registry was restored from an older copy"
