"""Routing rules as a person writes them, in YAML."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import InvalidDocument
from registry.models import DeclaredHeader, Route

MAX_FILE = 4 << 20
"""Bytes: 500 routes with all their conditions are under 3 MB."""


@dataclass(frozen=True, slots=True)
class Rules:
    routes: tuple[Route, ...]
    headers: tuple[DeclaredHeader, ...] | None
    """None: those that the rules test."""


def read_rules(file: Path, tenant: str) -> Rules:
    """A list of rules, or ``{headers: {x-name: {values: […], required: true}}, routes: […]}``.

    Raises InvalidDocument with the lines of all faults of form, and OSError.
    """
    from trainer.recipes.yaml import parse

    with file.open("rb") as stream:
        data = stream.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise InvalidDocument(f"{file}: larger than {MAX_FILE} bytes")
    try:
        parsed = parse(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"{file}: not UTF-8: {error}") from None
    if parsed.faults:
        raise InvalidDocument(f"{file}: {'; '.join(f'line {line}: {what}' for line, what in parsed.faults)}")
    given: Any = parsed.value
    if isinstance(given, list):
        given = {"routes": given}
    if not isinstance(given, dict) or not set(given) <= {"headers", "routes"} or "routes" not in given:
        raise InvalidDocument(f"{file}: neither a list of routes nor a map of headers and routes")
    headers = given.get("headers")
    return Rules(
        routes=tuple(_route(rule, tenant, file) for rule in _list(given["routes"], file)),
        headers=None if headers is None else tuple(_headers(headers, file)),
    )


def _list(value: Any, file: Path) -> list[Any]:
    if not isinstance(value, list):
        raise InvalidDocument(f"{file}: routes is not a list")
    return value


def _route(rule: Any, tenant: str, file: Path) -> Route:
    if not isinstance(rule, dict):
        raise InvalidDocument(f"{file}: a route is a map of name, model, when, adapter, alias, policy")
    try:
        return Route.build({"tenant": tenant} | rule)
    except InvalidDocument as error:
        raise InvalidDocument(f"{file}: route {str(rule.get('name'))[:80]!r}: {error.message}") from None


def _headers(headers: Any, file: Path) -> list[DeclaredHeader]:
    if not isinstance(headers, dict):
        raise InvalidDocument(f"{file}: headers is not a map of names")
    found = []
    for name, said in headers.items():
        declared = {"values": said} if isinstance(said, list) else said
        if not isinstance(declared, dict):
            raise InvalidDocument(f"{file}: header {name[:80]!r}: write its values, or values and required")
        try:
            found.append(DeclaredHeader.build(declared | {"name": name}))
        except InvalidDocument as error:
            raise InvalidDocument(f"{file}: header {name[:80]!r}: {error.message}") from None
    return found
