"""A policy as a person writes it, in YAML; or only its schema, in JSON."""

import json
from pathlib import Path
from typing import Any

from registry.errors import InvalidDocument
from registry.models import Policy
from registry.policies import MAX_BYTES

MAX_FILE = 512 * 1024
"""Bytes: a schema and a prompt have 64 KiB each."""


def read_policy(file: Path, *, tenant: str, name: str) -> Policy:
    """A map of what a policy says, with ``schema`` for ``json_schema``: the schema itself, or the name of a
    JSON file beside this one.

    Raises InvalidDocument with the lines of all faults of form, and OSError.
    """
    from trainer.recipes.yaml import parse

    parsed = parse(_text(file, MAX_FILE))
    if parsed.faults:
        raise InvalidDocument(f"{file}: {'; '.join(f'line {line}: {what}' for line, what in parsed.faults)}")
    given: Any = parsed.value
    if not isinstance(given, dict):
        raise InvalidDocument(f"{file}: not a map of what the policy says")
    if "schema" in given:
        given = given | {"json_schema": _schema(given["schema"], file)}
        del given["schema"]
    try:
        return Policy.build(given | {"tenant": tenant, "name": name})
    except InvalidDocument as error:
        raise InvalidDocument(f"{file}: {error.message}") from None


def read_schema(file: Path) -> str:
    """JSON text, as its author wrote it; longer than a policy may hold is cut, and then refused for that."""
    return _text(file, MAX_BYTES + 1, cut=True)


def _schema(given: Any, file: Path) -> str:
    if isinstance(given, str):
        return read_schema(file.parent / given)
    # A map keeps the order in which it was written, which is the order of answers.
    return json.dumps(given, ensure_ascii=False, separators=(",", ":"))


def _text(file: Path, most: int, *, cut: bool = False) -> str:
    with file.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most and not cut:
        raise InvalidDocument(f"{file}: larger than {most} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"{file}: not UTF-8: {error}") from None
