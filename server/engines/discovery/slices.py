"""EndpointSlices (discovery.k8s.io/v1) as the API server writes them: parsed, and read as engines."""

import re
from collections.abc import Collection, Iterable
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from registry.canonical import decode
from registry.errors import InvalidDocument
from registry.names import PATTERN
from server.engines.discovery.sighting import Address, Listed

PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
SERVICE = "kubernetes.io/service-name"
"""The label by which a slice says whose it is."""
_NAME: Final = re.compile(PATTERN, re.ASCII)
M = TypeVar("M", bound=BaseModel)


class _Part(BaseModel):
    """Kubernetes adds fields with every release: what is not read here is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, strict=True)


class _Conditions(_Part):
    terminating: bool | None = None
    """Nil counts as false. ``ready`` and ``serving`` are not looked at: an engine is ready when it is
    attested, and has to be announced first."""


class _Target(_Part):
    kind: str = ""
    name: str = ""
    namespace: str | None = None


class _Endpoint(_Part):
    addresses: tuple[str, ...] = Field(max_length=100)
    conditions: _Conditions | None = None
    target_ref: _Target | None = None


class _Port(_Part):
    name: str | None = None
    port: int | None = None


class _Metadata(_Part):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None


class Slice(_Part):
    metadata: _Metadata
    endpoints: tuple[_Endpoint, ...] | None = Field(default=None, max_length=1000)
    ports: tuple[_Port, ...] | None = Field(default=None, max_length=100)

    @property
    def name(self) -> str:
        return self.metadata.name

    def of(self, namespace: str, services: Collection[str]) -> bool:
        """The server was asked for just these; one that says something else is not believed."""
        named = (self.metadata.labels or {}).get(SERVICE)
        return self.metadata.namespace == namespace and named in services


class _ListMetadata(_Part):
    resource_version: str = Field(min_length=1)
    next: str | None = Field(default=None, alias="continue")


class Page(_Part):
    metadata: _ListMetadata
    items: tuple[Slice, ...] | None = None


class _Version(_Part):
    metadata: _Metadata


class _Status(_Part):
    code: int = 0


class _Event(_Part):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: dict[str, Any]


class Happened(BaseModel):
    """One line of a watch."""

    model_config = ConfigDict(frozen=True)

    version: str = ""
    """Where to go on from."""
    gone: str | None = None
    """The name of a slice that was deleted."""
    now: Slice | None = None
    error: int | None = None
    """The server's status; the watch is over."""


def page(data: bytes) -> Page:
    """Raises InvalidDocument."""
    return _built(Page, decode(data))


def happened(line: bytes) -> Happened:
    """Raises InvalidDocument."""
    event = _built(_Event, decode(line))
    if event.type == "ERROR":
        return Happened(error=_built(_Status, event.object).code)
    if event.type == "BOOKMARK":
        return Happened(version=_built(_Version, event.object).metadata.resource_version)
    found = _built(Slice, event.object)
    version = found.metadata.resource_version
    return (
        Happened(version=version, gone=found.name)
        if event.type == "DELETED"
        else Happened(version=version, now=found)
    )


def engines(slices: Iterable[Slice], *, namespace: str, port: str) -> MappingProxyType[str, Listed]:
    """By the name of their pods. An endpoint may stand in two slices at a time while the control plane of
    Kubernetes moves it, and a pod that ends beside the one that has its name next: whoever stays, counts.

    ``port``: the name of the port that routers call; a slice without it is of another Service.
    """
    staying: dict[str, set[Address]] = {}
    ending: dict[str, set[Address]] = {}
    for each in slices:
        numbers = [one.port for one in each.ports or () if one.name == port and one.port is not None]
        for endpoint in each.endpoints or () if numbers else ():
            target = endpoint.target_ref
            if target is None or target.kind != "Pod" or target.namespace not in (None, namespace):
                continue
            if not _NAME.fullmatch(target.name):  # no engine can have it
                continue
            ends = endpoint.conditions is not None and endpoint.conditions.terminating
            at = {Address(address.lower(), number) for address in endpoint.addresses for number in numbers}
            (ending if ends else staying).setdefault(target.name, set()).update(at)
    return MappingProxyType(
        {
            name: Listed(
                addresses=frozenset(staying.get(name, ending.get(name, ()))), ending=name not in staying
            )
            for name in sorted(staying.keys() | ending.keys())
        }
    )


def _built(model: type[M], value: Any) -> M:
    try:
        return model.model_validate(value, strict=False)
    except ValidationError as error:
        raise InvalidDocument(f"not what an API server says: {error.error_count()} faults") from None
