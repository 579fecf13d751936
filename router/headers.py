"""Request headers, with repeats kept visible: a proxy and a server may disagree about which one counts."""

from collections.abc import Iterable


class Headers:
    __slots__ = ("_table", "raw")

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        """``raw``: names in lower case, as ASGI has them."""
        self.raw = list(raw)
        self._table = dict(self.raw)

    def every(self, name: str) -> list[str]:
        """All values of ``name`` (lower case), in order; empty when it was not sent."""
        key = name.encode("latin-1", "replace")
        value = self._table.get(key)
        if value is None:
            return []
        if len(self._table) == len(self.raw):  # no name came twice
            return [value.decode("latin-1")]
        return [value.decode("latin-1") for each, value in self.raw if each == key]
