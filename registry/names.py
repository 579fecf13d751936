"""Names and refs: the only spellings of tenants, adapters and aliases that may enter Tenon.

The grammar is narrow on purpose: a name ends up in file names, headers, URLs and metric labels, and peers
have been broken by traversal in each of those (vLLM's filesystem resolver, LoRAX #798).
"""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import StringConstraints

from registry.digests import Digest
from registry.errors import InvalidDigest, InvalidName, InvalidRef

PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_NAME = re.compile(PATTERN[1:-1], re.ASCII)

Name = Annotated[str, StringConstraints(pattern=PATTERN)]
"""A checked name, as a field of a document."""

LIVE = "live"


def parse_name(text: str, what: str = "name") -> str:
    """``text`` if it is a well-formed name, else :class:`InvalidName`."""
    if not _NAME.fullmatch(text):
        raise InvalidName(f"not a valid {what}: {text[:80]!r}", what=what)
    return text


@dataclass(frozen=True, slots=True)
class AdapterName:
    """``tenant/adapter``: the tenant is part of the name, so a foreign name cannot be written by accident."""

    tenant: str
    adapter: str

    @classmethod
    def parse(cls, text: str) -> "AdapterName":
        tenant, slash, adapter = text.partition("/")
        if not slash:
            raise InvalidRef(f"no tenant in {text[:80]!r}", hint="write tenant/adapter")
        return cls(parse_name(tenant, "tenant"), parse_name(adapter, "adapter name"))

    def __str__(self) -> str:
        return f"{self.tenant}/{self.adapter}"


@dataclass(frozen=True, slots=True)
class Ref:
    """``tenant/adapter:alias`` or ``tenant/adapter@sha256:…``: exactly one of the two is set."""

    name: AdapterName
    alias: str | None = None
    version: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> "Ref":
        """A ref; a bare ``tenant/adapter`` means its ``live`` alias."""
        head, at, digest = text.partition("@")
        try:
            if at:
                return cls(AdapterName.parse(head), version=Digest(digest))
            path, colon, alias = text.partition(":")
            return cls(AdapterName.parse(path), alias=parse_name(alias, "alias") if colon else LIVE)
        except (InvalidName, InvalidDigest) as error:
            raise InvalidRef(f"not a ref: {text[:160]!r} ({error.message})") from None

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else f"{self.name}:{self.alias}"


def engine_name(version: Digest) -> str:
    """The name a version carries inside an engine: one per digest, never reused.

    vLLM keys its prefix cache by the bare name, so a reused name serves stale answers.
    """
    return f"tenon-{version.hex}"
