"""Every error Tenon raises on purpose.

    TenonError
    ├── InvalidInput             400  what was given cannot be parsed or is not allowed
    │   └── IntakeRefused        422  adapter bytes that must not enter the registry (one leaf a reason)
    ├── NotFound                 404
    ├── Conflict                 409
    ├── Refused                  403  understood, and not permitted (gates, signatures)
    └── Corrupt                  500  stored bytes do not match their digest, chain or signature

Each leaf fixes ``code`` (stable, never reused), ``status`` (HTTP) and ``hint`` (what to do next). Router,
trainer and server add leaves of their own in their ``errors.py``. Three renderers turn an error into text:
OpenAI envelope (``router.problems``), problem+json (``server.api.problems``), terminal (``server.cli``).
Messages never carry another tenant's names, file paths of the server, or stack traces.
"""

from typing import ClassVar


class TenonError(Exception):
    """Root of all deliberate errors.

    ``message`` is one sentence for people; ``facts`` are the values behind it, for machines and tests.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    hint: ClassVar[str] = ""

    def __init__(self, message: str, /, *, hint: str | None = None, **facts: object) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts
        self.advice = self.hint if hint is None else hint


class InvalidInput(TenonError):
    code, status = "invalid_input", 400


class InvalidName(InvalidInput):
    code = "invalid_name"
    hint = "use 1 to 63 of a-z, 0-9, '_' and '-', starting with a letter or digit"


class InvalidRef(InvalidInput):
    code = "invalid_ref"
    hint = "write tenant/adapter:alias or tenant/adapter@sha256:…"


class InvalidDigest(InvalidInput):
    code = "invalid_digest"
    hint = "a digest is 'sha256:' and 64 lower-case hex digits"


class InvalidDocument(InvalidInput):
    code = "invalid_document"


class UnsupportedSchema(InvalidInput):
    code = "unsupported_schema"
    hint = "keep to the JSON-schema keywords listed in docs/reference/policies.md"


class PolicyContradicts(InvalidInput):
    """Its parts cannot all be kept; ``facts['faults']`` lists them."""

    code = "policy_contradicts"
    hint = "docs/reference/policies.md says what goes together"


class BaseInvalid(InvalidInput):
    code = "base_invalid"
    hint = "a base folder needs config.json, safetensors weights, tokenizer.json and a chat template"


class IntakeRefused(InvalidInput):
    code, status = "adapter_refused", 422


class AdapterFileMissing(IntakeRefused):
    code = "adapter_file_missing"
    hint = "a PEFT folder needs adapter_config.json and adapter_model.safetensors"


class AdapterFileUnexpected(IntakeRefused):
    code = "adapter_file_unexpected"
    hint = "keep only adapter_config.json and adapter_model.safetensors (tokenizer and README are ignored)"


class AdapterArchiveInvalid(IntakeRefused):
    code = "adapter_archive_invalid"
    hint = "pack the files plainly: tar czf adapter.tar.gz adapter_config.json adapter_model.safetensors"


class AdapterPickle(IntakeRefused):
    code = "adapter_pickle"
    hint = "pickles run code when read: save with safe_serialization=True and delete *.bin, *.pt, *.pkl"


class AdapterConfigInvalid(IntakeRefused):
    code = "adapter_config_invalid"
    hint = "save the adapter again with a current PEFT"


class AdapterUnsupported(IntakeRefused):
    code = "adapter_unsupported"
    hint = "train a plain LoRA: no DoRA, bias, modules_to_save or special initialisations"


class AdapterRankTooHigh(IntakeRefused):
    code = "adapter_rank_too_high"
    hint = "train with a smaller r, or raise TENON_MAX_ADAPTER_RANK where engines serve larger ranks"


class AdapterBaseMismatch(IntakeRefused):
    code = "adapter_base_mismatch"
    hint = "train on the base that this registry serves: tenon base show NAME"


class AdapterModuleUnknown(IntakeRefused):
    code = "adapter_module_unknown"
    hint = "the adapter names a layer that the base does not have: was it trained on another base?"


class AdapterShapeMismatch(IntakeRefused):
    code = "adapter_shape_mismatch"
    hint = "these weights were not trained with this adapter_config.json on this base: save the adapter again"


class AdapterTensorsMalformed(IntakeRefused):
    code = "adapter_tensors_malformed"
    hint = "the safetensors file is damaged or not a safetensors file: save it again"


class AdapterNotFinite(IntakeRefused):
    code = "adapter_not_finite"
    hint = "NaN or infinite weights poison every tenant on an engine: train again with a lower learning rate"


class AdapterTooLarge(IntakeRefused):
    code = "adapter_too_large"
    hint = "finite but huge weights overflow in the engine: train again with a lower learning rate"


class AdapterZeroEffect(IntakeRefused):
    code = "adapter_zero_effect"
    hint = "all B matrices are zero, so this adapter would answer exactly as the base does: train it first"


class LayoutInvalid(IntakeRefused):
    code = "oci_layout_invalid"
    hint = "export it again with tenon adapter export, or fetch it again: oras cp --to-oci-layout"


class NotFound(TenonError):
    code, status = "not_found", 404


class TenantNotFound(NotFound):
    code = "tenant_not_found"


class AdapterNotFound(NotFound):
    code = "adapter_not_found"


class VersionNotFound(NotFound):
    code = "version_not_found"


class AliasNotFound(NotFound):
    code = "alias_not_found"


class PolicyNotFound(NotFound):
    code = "policy_not_found"


class BaseNotFound(NotFound):
    code = "base_not_found"


class KeyNotFound(NotFound):
    code = "key_not_found"


class BlobNotFound(NotFound):
    code = "blob_not_found"


class SigningKeyNotFound(NotFound):
    code = "signing_key_not_found"


class WorkspaceNotFound(NotFound):
    code = "workspace_not_found"
    hint = "make one with: tenon init DIR"


class EntryNotFound(NotFound):
    code = "entry_not_found"


class HeadNotFound(NotFound):
    code = "head_not_found"
    hint = "a head is signed at the end of every change, not after every entry"


class Conflict(TenonError):
    code, status = "conflict", 409


class AlreadyExists(Conflict):
    code = "already_exists"


class AliasMoved(Conflict):
    code = "alias_moved"
    hint = "somebody moved the alias meanwhile: look at it again, then retry"


class FeedMismatch(Conflict):
    code = "feed_mismatch"
    hint = "read the whole state again"


class Refused(TenonError):
    code, status = "refused", 403


class GateRefused(Refused):
    code = "gate_refused"
    hint = "see the reasons above; an alias moves only after its gate passes"


class VersionRevoked(Refused):
    code = "version_revoked"


class SignatureInvalid(Refused):
    code = "signature_invalid"


class KeyRefused(Refused):
    """Unknown, revoked, expired, of a suspended tenant, or no key at all: nobody learns which."""

    code, status = "key_refused", 401
    hint = "send a valid API key or token: Authorization: Bearer tn_…"


class SigningKeyExposed(Refused):
    code = "signing_key_exposed"
    hint = "chmod 600 the file, and make a new key if others may have read it"


class LogKeyNotInForce(TenonError):
    code, status = "log_key_not_in_force", 503
    hint = "the log key was rotated: start this process again with the key that is in force"


class Corrupt(TenonError):
    code, status = "corrupt", 500
    hint = "stop writing to this workspace and restore the damaged file from a backup"


class BlobCorrupt(Corrupt):
    code = "blob_corrupt"


class LogCorrupt(Corrupt):
    code = "log_corrupt"


class LogForked(Corrupt):
    """Two signed heads that no single log can have: proof that somebody was shown another history."""

    code, status = "log_forked", 409
    hint = "keep both heads: together they prove it"


class LogExportInvalid(Corrupt):
    code = "log_export_invalid"
    hint = "do not rely on this file: export it again and compare"


class RecordCorrupt(Corrupt):
    code = "record_corrupt"


class RecordChainForked(Corrupt):
    """Two chains under one writer name: its records were lost or put back, or two routers have the name."""

    code = "record_chain_forked"
    hint = "bring back the folder with the writer's newest records, or give this router a new TENON_WRITER"


class ReceiptInvalid(Corrupt):
    code = "receipt_invalid"
    hint = "do not rely on this receipt: ask for it again and compare"
