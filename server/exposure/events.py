"""A published bug of an engine, as a small data file: which versions, and what must have happened."""

from importlib import resources
from pathlib import Path
from typing import Literal

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import Field

from registry.canonical import Document
from registry.errors import InvalidInput

Condition = Literal["always", "adapter_loaded_in_flight", "other_adapter_resident"]


class EngineEvent(Document):
    kind: Literal["tenon.engine-event/v1"] = "tenon.engine-event/v1"
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    title: str = Field(min_length=1, max_length=300)
    source: str = Field(max_length=300)
    affected: str
    """Versions of the engine (PEP 440): ``>=0.11,<0.32``. Empty: all."""
    condition: Condition
    """``always``: every answer of such an engine. ``adapter_loaded_in_flight``: those under way while that
    engine loaded an adapter. ``other_adapter_resident``: those of an engine that held another adapter too."""


def event_of(name: str) -> EngineEvent:
    """One that ships with Tenon, by its id, or a file. Raises InvalidInput, InvalidDocument."""
    shipped = resources.files("server.exposure") / "events" / f"{Path(name).name}.json"
    if shipped.is_file():
        return EngineEvent.parse(shipped.read_bytes())
    if Path(name).is_file():
        return EngineEvent.parse(Path(name).read_bytes())
    raise InvalidInput(
        f"no event {name[:80]!r} is known", hint=f"known are {', '.join(known())}, or give a file"
    )


def known() -> list[str]:
    folder = resources.files("server.exposure") / "events"
    return sorted(file.name.removesuffix(".json") for file in folder.iterdir())


def versions(text: str) -> SpecifierSet:
    """Raises InvalidInput."""
    try:
        return SpecifierSet(text, prereleases=True)
    except InvalidSpecifier:
        raise InvalidInput(f"not a range of versions: {text[:80]!r}", hint="as in >=0.11,<0.32") from None


def within(version: str, ranges: list[SpecifierSet]) -> bool:
    """An unreadable version is within every range: nobody can say that it is not."""
    try:
        parsed = Version(version)
    except InvalidVersion:
        return True
    return all(each.contains(parsed, prereleases=True) for each in ranges)
