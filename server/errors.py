"""Errors of the composition root; engines have their own in ``server.engines.errors``."""

from registry.errors import Conflict, InvalidInput, NotFound, Refused, TenonError


class SettingsInvalid(InvalidInput):
    code = "settings_invalid"
    hint = "see docs/reference/settings.md for every TENON_ variable"


class ControlUnreachable(TenonError):
    code, status = "control_unreachable", 503
    hint = "is the control plane running? tenon doctor says more"


class ControlBusy(TenonError):
    """It was reached, and cannot answer now."""

    code, status = "control_busy", 503
    hint = "try again; if it stays, the control plane's log has the reason"


class ControlRefused(TenonError):
    code, status = "control_refused", 502
    hint = "check that both processes read the same service token"


class RecordNotFound(NotFound):
    code = "record_not_found"
    hint = "the id is in the header X-Tenon-Record; a record is in the folder of the router that wrote it"


class ShippingBusy(Conflict):
    code = "shipping_busy"
    hint = "one process a target is enough; it goes on where the other one is"


class PruningBusy(Conflict):
    code = "pruning_busy"
    hint = "wait until it has ended"


class ShippingTargetInvalid(InvalidInput):
    code = "shipping_target_invalid"
    hint = "give a folder like ./records, s3:PREFIX/ within the bucket of TENON_S3_BUCKET, or registry"


class StartFailed(TenonError):
    code, status = "start_failed", 500
    hint = "the log file named above has the reason; tenon doctor checks the machine"


class PortTaken(TenonError):
    code, status = "port_taken", 409
    hint = "stop what listens there, or choose another with --port"


class DependencyMissing(TenonError):
    code, status = "dependency_missing", 500
    hint = "run: make setup"


class RoleNotPermitted(Refused):
    code = "role_not_permitted"
    hint = "ask somebody with a higher role; GET /api/v1/whoami says which one this is"


class BodyTooLarge(InvalidInput):
    code, status = "body_too_large", 413


class BodyBrokenOff(InvalidInput):
    code = "body_broken_off"
    hint = "send it again; an upload goes on from what has arrived"


class RangeNotSatisfiable(InvalidInput):
    code, status = "range_not_satisfiable", 416


class MediaTypeNotSupported(InvalidInput):
    code, status = "media_type_not_supported", 415


class AlreadyRunning(Conflict):
    code = "already_running"
    hint = "stop it with: tenon down"


class FileUnusable(InvalidInput):
    code = "file_unusable"
    hint = "check the path and its permissions"


class NoSuchLine(InvalidInput):
    code = "no_such_line"
    hint = "a row is found by the line on which it begins"


class IdentityProviderUnreachable(TenonError):
    code, status = "identity_provider_unreachable", 503
    hint = "try again later, or use a key"


class InvalidCursor(InvalidInput):
    code = "invalid_cursor"
    hint = "use the cursor exactly as `next` gave it, or start again without one"


class InvalidPrecondition(InvalidInput):
    code = "invalid_precondition"
    hint = 'send the ETag as it came: If-Match: "3"'


class InvalidIdempotencyKey(InvalidInput):
    code = "invalid_idempotency_key"
    hint = "use 1 to 255 visible ASCII characters, such as a UUID"


class FolderNeeded(InvalidInput):
    code = "folder_needed"
    hint = "this needs the files of a workspace: give its folder with -w, on the machine that has it"


class UrlInvalid(InvalidInput):
    code = "url_invalid"
    hint = "write https://host or https://host:port, without user, query or fragment"


class NotLoggedIn(Refused):
    code, status = "not_logged_in", 401


class EngineNotExpected(Refused):
    code = "engine_not_expected"
    hint = "tenon fleet says which engines are expected; docs/concepts/fleet.md says how they are listed"


class SourceNotFound(InvalidInput):
    code = "source_not_found"
    hint = "give a PEFT folder, a .zip or .tar.gz of one, or a hub name: org/name or org/name@revision"


class ReferenceFailed(InvalidInput):
    code, status = "reference_failed", 422
    hint = "try again with more time (--limit) on a machine with more memory, or look at the adapter"


class Unconfined(InvalidInput):
    code, status = "unconfined", 422
    hint = "run it on a Linux with Landlock (5.13 or later), or trust the adapter and give --unwalled"
