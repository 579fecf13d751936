"""Request headers, with repeats kept visible: a proxy and a server may disagree about which one counts."""

from collections.abc import Iterable


class Headers:
    __slots__ = ("_table",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        table: dict[str, list[str]] = {}
        for name, value in raw:
            table.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        self._table = table

    def every(self, name: str) -> list[str]:
        """All values of ``name`` (lower case), in order; empty when it was not sent."""
        return self._table.get(name, [])
