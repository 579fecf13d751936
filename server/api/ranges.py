"""One range of bytes (RFC 9110, 14): what a download that broke off asks for."""

import re

from server.errors import RangeNotSatisfiable

_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,15})-(?P<last>[0-9]{0,15})", re.ASCII)


def asked(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, length) within ``size`` bytes; None for no range, and for what a server may ignore: several
    ranges, other units, nonsense. Raises RangeNotSatisfiable."""
    found = _RANGE.fullmatch(header.replace(" ", "").lower()) if header else None
    if found is None or not (found["first"] or found["last"]):
        return None
    if not found["first"]:
        length = min(int(found["last"]), size)
        if not length:
            raise RangeNotSatisfiable(f"there are {size} bytes")
        return size - length, length
    first = int(found["first"])
    last = min(int(found["last"]), size - 1) if found["last"] else size - 1
    if found["last"] and int(found["last"]) < first:
        return None
    if first >= size:
        raise RangeNotSatisfiable(f"there are {size} bytes")
    return first, last - first + 1
