"""A policy as requests need it: its schema parsed, ready to be sent to an engine and to judge an answer."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from referencing.jsonschema import EMPTY_REGISTRY

from registry import canonical
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.models import Policy

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    digest: Digest
    policy: Policy
    schema_bytes: bytes | None
    """Canonical JSON of the schema, to compare with one that a client sends."""
    validator: Draft202012Validator | None
    response_format: Mapping[str, Any] | None


def compile_policy(digest: Digest, policy: Policy) -> CompiledPolicy:
    """Raises SchemaError for a schema that is none, InvalidDocument when ``digest`` is not the policy's."""
    if policy.identity() != digest:
        raise InvalidDocument("the policy's digest does not match its content")
    schema = policy.answer_schema()
    if schema is None:
        return CompiledPolicy(digest, policy, None, None, None)
    Draft202012Validator.check_schema(schema)
    # An explicit registry: the default one fetches remote $refs over the network while validating.
    validator = Draft202012Validator(
        schema,
        registry=EMPTY_REGISTRY,
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )
    response_format = {
        "type": "json_schema",
        "json_schema": {"name": policy.name, "schema": schema, "strict": True},
    }
    return CompiledPolicy(digest, policy, canonical.encode(schema), validator, response_format)


class LazyPolicy:
    """Compiled when it is first asked for: 10,000 of them at once would keep a router from starting for long
    (about 1 ms each), and a router sees requests of few tenants."""

    __slots__ = ("_compiled", "_tried", "digest", "policy")

    def __init__(self, digest: Digest, policy: Policy) -> None:
        self.digest = digest
        self.policy = policy
        self._tried = False
        self._compiled: CompiledPolicy | None = None

    @property
    def compiled(self) -> CompiledPolicy | None:
        """None: it cannot be applied."""
        if not self._tried:
            try:
                self._compiled = compile_policy(self.digest, self.policy)
            except (SchemaError, InvalidDocument, RecursionError):
                _log.warning("policy %s cannot be applied", self.digest.short)
            self._tried = True
        return self._compiled
