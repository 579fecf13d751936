"""The engines that somebody wrote down in a file."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from registry.canonical import Document
from registry.errors import InvalidDocument
from registry.names import Name
from server.engines.discovery.sighting import Address, Listed, Sighting

MAX_BYTES = 1024 * 1024
"""About 10,000 engines."""
_log = logging.getLogger(__name__)


class ListedEngine(Document):
    name: Name
    base: Name | None = None
    url: str | None = Field(default=None, pattern=r"^https?://[^/?#@]+/?$")
    tenant: Name | None = None


class EngineList(Document):
    """The file, in YAML or JSON."""

    kind: Literal["tenon.engines/v1"]
    engines: tuple[ListedEngine, ...]


class StaticList:
    """Read again whenever it is looked at, so that an edit (or a ConfigMap's update) needs no restart."""

    def __init__(self, file: Path, *, ticks: Callable[[], float] = time.monotonic) -> None:
        """Raises InvalidDocument and OSError: a list that was never readable is a fault of the settings."""
        self._file = file
        self._ticks = ticks
        self._data = _read(file)
        self._refused = b""
        self._engines = parse(self._data)
        self._heard = ticks()

    def look(self) -> Sighting:
        """A file that cannot be read, or not understood, leaves what was known before."""
        try:
            data = _read(self._file)
            if data == self._refused:
                return Sighting(self._engines, self._heard)
            if data != self._data:
                self._engines = parse(data)
            self._data, self._refused, self._heard = data, b"", self._ticks()
        except InvalidDocument as error:
            self._refused = data
            _log.warning("the list of engines is not taken: %s", error.message)
        except OSError as error:
            _log.debug("the list of engines cannot be read: %s", error.strerror)
        return Sighting(self._engines, self._heard)


def parse(data: bytes) -> MappingProxyType[str, Listed]:
    """Raises InvalidDocument."""
    from trainer.recipes.yaml import parse as parse_yaml  # noqa: PLC0415 (only where a list is used)

    if len(data) > MAX_BYTES:
        raise InvalidDocument(f"larger than {MAX_BYTES} bytes")
    try:
        parsed = parse_yaml(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidDocument("not UTF-8") from None
    if parsed.faults:
        raise InvalidDocument("; ".join(f"line {line}: {what}" for line, what in parsed.faults))
    given: Any = parsed.value
    found: dict[str, Listed] = {}
    for each in EngineList.build(_plain(given)).engines:
        if each.name in found:
            raise InvalidDocument(f"{each.name} is listed twice")
        address = None if each.url is None else frozenset({Address.of(each.url)})
        found[each.name] = Listed(base=each.base, tenant=each.tenant, addresses=address)
    return MappingProxyType(found)


def _plain(given: Any) -> Any:
    try:
        json.dumps(given)
    except (TypeError, ValueError):  # a date, say
        raise InvalidDocument("only words and lists belong there") from None
    return given


def _read(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)
