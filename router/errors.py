"""What the router refuses, and what it says when an engine lets it down.

    RouterError
    ├── MissingApiKey, InvalidApiKey                     401
    ├── TenantMismatch, RoleForbidden, TenantSuspended   403
    ├── InvalidRequest, DuplicateHeader, UnsupportedParameter, SamplingOutOfBounds,
    │   ResponseFormatConflict, ToolNotAllowed, EndpointNotAllowed, EndpointUnsupported,
    │   MetadataUnmatched, MetadataRequired, EngineRejectedRequest, RequestOverLimit   400
    ├── ModelNotFound, ReceiptNotFound, PathNotFound, TextNotKept     404
    ├── RouteAmbiguous 409, AliasExpired, TextUnreadable 410
    ├── RateLimited, BudgetSpent, SchemasTooLarge        429
    ├── RequestTimeout 408, RequestTooLarge 413, OutputTruncated 422, OutputRefused 422, ClientGone 499
    ├── EngineFailed, EngineAnswerMismatch, EngineInterrupted, OutputInvalid,
    │   ToolCallInvalid                                                                     502
    ├── RouterNotReady, RouteUnusable, AdapterNotReady, EngineUnavailable, RecordUnavailable,
    │   RecordsBusy, RetentionUnavailable, Overloaded, RouterDraining                      503
    ├── EngineTimeout                                    504
    └── Internal                                         500

Only these reach a client (``router.problems``); their sentences never carry a tenant's names, an engine's
words, or text of a prompt. ``facts["param"]`` becomes the envelope's ``param``.
"""

from collections.abc import Sequence

from registry.errors import TenonError


class RouterError(TenonError):
    """Root of what a client of the router may be told."""

    headers: Sequence[tuple[bytes, bytes]] = ()
    """Of the response that tells it."""


class MissingApiKey(RouterError):
    code, status = "missing_api_key", 401
    hint = "send the header Authorization: Bearer tn_…"

    def __init__(self) -> None:
        super().__init__("no API key was given")


class InvalidApiKey(RouterError):
    """One sentence for unknown, malformed and revoked: the difference is nobody's business."""

    code, status = "invalid_api_key", 401
    hint = "check the key with your tenant's administrator; a revoked key stays revoked"

    def __init__(self) -> None:
        super().__init__("the API key is not valid")


class TenantMismatch(RouterError):
    code, status = "tenant_mismatch", 403
    hint = "leave X-Tenant-ID out, or send the tenant that the API key belongs to"

    def __init__(self) -> None:
        super().__init__("X-Tenant-ID is not the tenant of this API key", param="X-Tenant-ID")


class RoleForbidden(RouterError):
    code, status = "role_forbidden", 403
    hint = "ask with a key of role inference"

    def __init__(self) -> None:
        super().__init__("this API key may not ask for completions")


class TenantSuspended(RouterError):
    code, status = "tenant_suspended", 403
    hint = "an administrator of the platform can resume it; nothing was deleted"

    def __init__(self) -> None:
        super().__init__("the tenant of this API key is suspended")


class InvalidRequest(RouterError):
    code, status = "invalid_request", 400


class DuplicateHeader(RouterError):
    code, status = "duplicate_header", 400
    hint = "send each metadata header once: proxies disagree about which one counts"


class EpochInvalid(RouterError):
    code, status = "epoch_invalid", 400
    hint = "send the header x-tenon-epoch back as the last answer of the conversation had it, or leave it out"


class UnsupportedParameter(RouterError):
    code, status = "unsupported_parameter", 400
    hint = "docs/reference/http.md lists the fields that are passed on"


class SamplingOutOfBounds(RouterError):
    code, status = "sampling_out_of_bounds", 400
    hint = "ask for less, or leave the field out to get the policy's default"


class ResponseFormatConflict(RouterError):
    code, status = "response_format_conflict", 400
    hint = "leave response_format out: the policy's schema is applied for you"


class ToolNotAllowed(RouterError):
    code, status = "tool_not_allowed", 400
    hint = "an administrator adds the tool's name to the policy of this route"

    def __init__(self, name: str) -> None:
        super().__init__(f"the policy of this route does not allow the tool {name[:64]!r}", param="tools")


class EndpointNotAllowed(RouterError):
    """The endpoint has no place for something that the policy demands of every answer."""

    code, status = "endpoint_not_allowed", 400
    hint = "ask POST /v1/chat/completions, or have a route with another policy"

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the policy of this route has {what}, which this endpoint cannot apply", param="model"
        )


class EndpointUnsupported(RouterError):
    code, status = "endpoint_unsupported", 400
    hint = "ask an endpoint that the model's base serves; most serve chat completions"

    def __init__(self) -> None:
        super().__init__("the base of this model does not serve this endpoint", param="model")


class MetadataUnmatched(RouterError):
    code, status = "metadata_unmatched", 400
    hint = "check the header's value; an unknown value never falls back to the default route"


class MetadataRequired(RouterError):
    code, status = "metadata_required", 400
    hint = "send one of the named headers, or ask for a default route"


class ModelNotFound(RouterError):
    """The same words for a foreign name, an engine's name, a path and a name that never existed."""

    code, status = "model_not_found", 404
    hint = "GET /v1/models lists the models of this API key"

    def __init__(self) -> None:
        super().__init__("the model does not exist or is not yours", param="model")


class ReceiptNotFound(RouterError):
    code, status = "receipt_not_found", 404
    hint = "use the X-Tenon-Record header of an answer that this tenant received"

    def __init__(self) -> None:
        super().__init__("the record does not exist or is not yours")


class PathNotFound(RouterError):
    code, status = "path_not_found", 404
    hint = "docs/reference/http.md lists every path; among them POST /v1/chat/completions and GET /v1/models"

    def __init__(self) -> None:
        super().__init__("there is nothing at this method and path")


class Limited(RouterError):
    """A limit of the tenant or of the key."""


class RateLimited(Limited):
    code, status = "rate_limit_exceeded", 429
    hint = "try again after the seconds in Retry-After; the headers x-ratelimit-… tell what is left"

    def __init__(self, what: str, limit: int, retry_after: int) -> None:
        super().__init__(f"the limit of {limit} {what} is reached; try again in {retry_after} s")
        self.headers = [(b"retry-after", b"%d" % retry_after)]


class BudgetSpent(Limited):
    code, status = "insufficient_quota", 429
    hint = "the budget is there again at midnight UTC; an administrator of the platform can raise it"

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(f"what is left of the limit of {limit} tokens per day does not suffice")
        # OpenAI's clients try again by themselves, in seconds, unless they are told not to.
        self.headers = [(b"retry-after", b"%d" % retry_after), (b"x-should-retry", b"false")]


class RequestOverLimit(Limited):
    """Not 429: clients try those again by themselves, and this request never passes."""

    code, status = "request_over_limit", 400
    hint = "ask for fewer max_tokens or a smaller n: no waiting makes this request fit"

    def __init__(self, tokens: int, limit: int, what: str) -> None:
        super().__init__(
            f"max_tokens × n is {tokens}, more than the limit of {limit} {what}", param="max_tokens"
        )


class Overloaded(RouterError):
    code, status = "overloaded", 503
    hint = "try again after the seconds in Retry-After"

    def __init__(self, retry_after: int) -> None:
        super().__init__("the engines of this model are busy, and the queue in front of them is too long")
        self.headers = [(b"retry-after", b"%d" % retry_after)]


class SchemasTooLarge(RouterError):
    code, status = "schemas_too_large", 429
    hint = "send fewer different tools and response formats at a time, with smaller patterns"

    def __init__(self) -> None:
        super().__init__("the schemas that your requests under way brought along take too much memory")
        self.headers = [(b"retry-after", b"1")]


class RequestTimeout(RouterError):
    code, status = "request_timeout", 408

    def __init__(self) -> None:
        super().__init__("the request body did not arrive in time")


class RouteAmbiguous(RouterError):
    code, status = "route_ambiguous", 409
    hint = "two routes match equally well: an administrator must make one of them more specific"

    def __init__(self) -> None:
        super().__init__("more than one route matches this request")


class RequestTooLarge(RouterError):
    code, status = "request_too_large", 413


class AliasExpired(RouterError):
    code, status = "alias_expired", 410
    hint = "an administrator must promote a version again; until then nothing answers in its place"

    def __init__(self) -> None:
        super().__init__("what this model points to has expired", param="model")


class OutputTruncated(RouterError):
    code, status = "output_truncated", 422
    hint = "raise max_tokens: the answer was cut before its JSON was complete"

    def __init__(self) -> None:
        super().__init__("the answer reached max_tokens before it satisfied the policy", param="max_tokens")


class OutputRefused(RouterError):
    """The model declined, in the way it has for that; its words are not passed on as an answer."""

    code, status = "output_refused", 422
    hint = "the model declined to answer this: change the question"

    def __init__(self) -> None:
        super().__init__("the model declined, so there is no answer that satisfies the policy")


class ClientGone(RouterError):
    """Never sent to anybody; it is how a record says that the client hung up (nginx's 499)."""

    code, status = "client_closed", 499

    def __init__(self) -> None:
        super().__init__("the client closed the connection")


class EngineRejectedRequest(RouterError):
    code, status = "request_rejected_by_engine", 400
    hint = "shorten the conversation or lower max_tokens; the model's context is limited"

    def __init__(self) -> None:
        super().__init__("the engine cannot serve this request: it is too long or its options do not combine")


class EngineFailed(RouterError):
    code, status = "engine_error", 502
    hint = "try again; if it stays, the operator finds the cause under this record in the engine's log"

    def __init__(self) -> None:
        super().__init__("the engine failed to answer")


class EngineAnswered(EngineFailed):
    """It answered, with an error or with more than is taken: it lives, and the request may be the reason."""


class EngineAnswerMismatch(RouterError):
    code, status = "engine_answer_mismatch", 502
    hint = "nothing of that answer was passed on; tell the operator the record id"

    def __init__(self) -> None:
        super().__init__("the engine's answer does not name the adapter that was asked")


class EngineInterrupted(RouterError):
    code, status = "engine_interrupted", 502
    hint = "what arrived so far is incomplete: discard it and try again"

    def __init__(self) -> None:
        super().__init__("the engine stopped before its answer was complete")


class EngineDied(EngineInterrupted):
    """Its connection broke under the answer. While the client has nothing of it, another one may be asked."""


class EngineStopped(EngineInterrupted):
    """It said so itself: an error in the stream, or an end that is none. It lives."""


class OutputInvalid(RouterError):
    code, status = "output_invalid", 502
    hint = "discard the answer: it is not the JSON that the policy or the request asks for"

    def __init__(self) -> None:
        super().__init__("the answer is not the JSON that the policy or the request asks for")


class ToolCallInvalid(OutputInvalid):
    code = "tool_call_invalid"
    hint = "discard the answer: it calls a tool that was not offered, or with arguments its schema forbids"

    def __init__(self) -> None:
        RouterError.__init__(self, "the answer's tool calls are not what the request asked for")


class RouterNotReady(RouterError):
    code, status = "router_not_ready", 503
    hint = "try again in a moment"


class RouterDraining(RouterError):
    """It was told to stop: what is under way ends, and a load balancer has other routers."""

    code, status = "router_draining", 503
    hint = "ask again: another router answers"

    def __init__(self) -> None:
        super().__init__("this router is about to stop")
        self.headers = [(b"retry-after", b"1")]


class RouterStopped(RouterError):
    """The time for draining was over, or it was told to stop a second time."""

    code, status = "router_stopped", 503
    hint = "ask again: another router answers"

    def __init__(self) -> None:
        super().__init__("this router stopped before the answer was complete")
        self.headers = [(b"retry-after", b"1")]


class RouteUnusable(RouterError):
    code, status = "route_unusable", 503
    hint = "an administrator must publish the route's policy again"

    def __init__(self) -> None:
        super().__init__("the policy of this route cannot be applied")


class AdapterNotReady(RouterError):
    code, status = "adapter_not_ready", 503
    hint = "try again in a moment; the base model never answers in an adapter's place"

    def __init__(self) -> None:
        super().__init__("no engine is attested for this model at the moment")


class EngineUnavailable(RouterError):
    code, status = "engine_unavailable", 503
    hint = "try again in a moment"

    def __init__(self) -> None:
        super().__init__("no engine that holds this model can be reached")


class NothingSent(EngineUnavailable):
    """The connection could not be opened, so nothing was sent and another engine may be asked."""


class RecordUnavailable(RouterError):
    code, status = "record_unavailable", 503
    hint = "no answer leaves without a record, and the record could not be written: tell the operator"

    def __init__(self) -> None:
        super().__init__("the audit record could not be written")


class RetentionUnavailable(RouterError):
    code, status = "retention_unavailable", 503
    hint = "an operator must give the router the retention key that its tenant keys were made with"

    def __init__(self) -> None:
        super().__init__("what the policy demands to be kept cannot be kept")


class TextNotKept(RouterError):
    """Told to operators only: no route of the router gives kept texts away."""

    code, status = "text_not_kept", 404
    hint = "texts are kept under policies whose retention is full, from when that was published"

    def __init__(self) -> None:
        super().__init__("no text is kept for this record here")


class TextUnreadable(RouterError):
    """Told to operators only."""

    code, status = "text_unreadable", 410
    hint = "what a deleted tenant key sealed is gone for good; else the file was changed: see a backup"

    def __init__(self) -> None:
        super().__init__("the text was sealed with a key that is gone, or it was changed")


class RecordsBusy(RouterError):
    """At start only: a chain has one writer."""

    code, status = "records_busy", 503
    hint = "give every router its own writer name and folder"

    def __init__(self) -> None:
        super().__init__("another process writes the records of this writer")


class EngineTimeout(RouterError):
    code, status = "engine_timeout", 504
    hint = "ask for fewer tokens, or stream the answer"

    def __init__(self) -> None:
        super().__init__("the engine took too long to answer")


class Internal(RouterError):
    code, status = "internal", 500
    hint = "tell the operator the record id"

    def __init__(self) -> None:
        super().__init__("the router failed")
