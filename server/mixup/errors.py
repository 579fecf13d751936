"""Errors of the mix-up suite."""

from registry.errors import InvalidInput, TenonError


class NothingToTest(InvalidInput):
    code = "mixup_nothing_to_test"
    hint = "give --base and --loading, --adapters that the server knows, or the keys of a Tenon's tenants"


class ReferenceRefused(TenonError):
    code, status = "mixup_reference_refused", 502
    hint = "the server must answer before it can be judged: check --url, --key and --shared-folder"


class ServerSilent(TenonError):
    code, status = "mixup_server_silent", 503
    hint = "is it running? /v1/models has to answer 200"


class MixupFound(TenonError):
    code, status = "mixup_found", 500
    hint = "the report names each danger; docs/mixup.md says what each means and what helps"


class ControlPassed(TenonError):
    code, status = "mixup_control_passed", 500
    hint = "what is broken on purpose was not noticed, so the suite's word about others is worth nothing"


class ReportUnusable(InvalidInput):
    code = "mixup_report_unusable"
    hint = "use a file that tenon mixup run --json FILE has written"


class DangerUnknown(InvalidInput):
    code = "mixup_danger_unknown"
    hint = "docs/mixup.md lists them: Q1, D1 to D16, S1"


class ControlUnknown(InvalidInput):
    code = "mixup_control_unknown"
    hint = "docs/mixup.md lists them"
