"""Errors of engines and their agent.

TenonError
├── InvalidInput
│   └── EngineSpecInvalid       engine_spec_invalid        400
├── EngineStartFailed           engine_start_failed        500  ended or hung before it was ready
│   ├── EngineUncertified       engine_uncertified         500  a vLLM that the mix-up suite has not seen
│   └── EngineUnguarded         engine_unguarded           500  nothing inside the engine watches its steps
├── EngineUnsafeVersion         engine_unsafe_version      500  a vLLM with known cross-tenant faults
├── EngineBaseUnknown           engine_base_unknown        500  the files are not a registered base
├── EngineUnreachable           engine_unreachable         503  no answer; says nothing about the slot
├── EngineAnswerUnusable        engine_answer_unusable     502  an answer that proves nothing
├── EngineLoadFailed            engine_load_failed         502  vLLM refused the adapter
├── AttestationFailed           attestation_failed         502  the slot does not behave as the version
├── ContractMismatch            contract_mismatch          502  other token ids than in training
├── CacheUnusable               engine_cache_unusable      500  a manifest or folder that cannot be cached
├── CacheDamaged                engine_cache_damaged       500  files changed under a running engine
├── BaseUnproven                engine_base_unproven       502  the bare base does not answer as itself
├── EngineTaken                 engine_taken               409  another agent runs this engine
├── EngineMisannounced          engine_misannounced        500  the registry lists another process for it
└── MergeFailed                 engine_merge_failed        500  a version could not be merged into its base
"""

from registry.errors import InvalidInput, TenonError


class EngineSpecInvalid(InvalidInput):
    code = "engine_spec_invalid"
    hint = "see docs/reference/settings.md for what an engine needs"


class EngineStartFailed(TenonError):
    code, status = "engine_start_failed", 500
    hint = "the last lines of the engine's log are above; tenon doctor checks the machine"


class EngineUnsafeVersion(TenonError):
    code, status = "engine_unsafe_version", 500
    hint = "install vLLM 0.32 or newer: older ones can answer one tenant with another tenant's weights"


class EngineUncertified(EngineStartFailed):
    code, status = "engine_uncertified", 500
    hint = (
        "put it through the suite (tenon mixup run --start ours --device cuda, or cpu), or answer for it: "
        "tenon up --allow-uncertified, engine.allowUncertified=true in the chart, "
        "TENON_ALLOW_UNCERTIFIED_ENGINE=true for tenon serve engine"
    )


class EngineUnguarded(EngineStartFailed):
    code, status = "engine_unguarded", 500
    hint = "install tenon in vLLM's own environment, in a release that knows this vLLM"


class EngineBaseUnknown(TenonError):
    code, status = "engine_base_unknown", 500
    hint = "register exactly these files, or point the engine at the files that are registered"


class EngineUnreachable(TenonError):
    code, status = "engine_unreachable", 503


class EngineAnswerUnusable(TenonError):
    code, status = "engine_answer_unusable", 502

    @property
    def passing(self) -> bool:
        """Whether vLLM only says that it failed (5xx): nothing is known, and another try may show more."""
        status = self.facts.get("status")
        return isinstance(status, int) and status >= 500


class EngineLoadFailed(TenonError):
    code, status = "engine_load_failed", 502

    @property
    def passing(self) -> bool:
        """Whether another try may do better: vLLM says 500 of an adapter that it can never use and of a full
        disk alike, and 404 of a folder that is gone for a moment. Other 4xx are about the adapter."""
        status = self.facts.get("status")
        return not isinstance(status, int) or status >= 500 or status == 404


class AttestationFailed(TenonError):
    code, status = "attestation_failed", 502
    hint = "the version stays out of service on this engine; publish it again or restart the engine"


class ContractMismatch(TenonError):
    code, status = "contract_mismatch", 502
    hint = "tokenizer or chat template differ from training: serve the base that the adapter was trained on"


class CacheUnusable(TenonError):
    code, status = "engine_cache_unusable", 500


class CacheDamaged(TenonError):
    code, status = "engine_cache_damaged", 500
    hint = "the engine starts again and fetches the files anew: find out who writes to the cache"


class BaseUnproven(TenonError):
    code, status = "engine_base_unproven", 502
    hint = "the engine starts again; if that does not help, fetch the base again"


class EngineTaken(TenonError):
    code, status = "engine_taken", 409
    hint = "two agents have the same TENON_ENGINE: the one that started last goes on"


class EngineMisannounced(TenonError):
    code, status = "engine_misannounced", 500
    hint = "the engine starts again; find out who else announces engines"


class MergeFailed(TenonError):
    code, status = "engine_merge_failed", 500
    hint = "the log of the engine says why; tenon adapter merge does the same by hand"


def refusal(error: TenonError) -> str:
    """The code of what the control plane refused, whether it was asked over HTTP or in this process."""
    said = error.facts.get("problem")
    return said if isinstance(said, str) and said else error.code
