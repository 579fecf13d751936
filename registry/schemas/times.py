"""The formats ``time`` and ``date-time`` (RFC 3339, 5.6)."""

import re
from datetime import date

_TIME = re.compile(
    r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(?:\.\d+)?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    if found is None:
        return False
    hour, minute, second, sign, ahead, and_minutes = found.groups()
    if second != "60":
        return True
    # A leap second is the last one of a day in UTC (5.7).
    offset = int(ahead) * 60 + int(and_minutes) if sign else 0
    return (int(hour) * 60 + int(minute) - (offset if sign == "+" else -offset)) % 1440 == 1439


def is_date_time(text: str) -> bool:
    return text[10:11] in ("T", "t") and _is_date(text[:10]) and is_time(text[11:])


def _is_date(text: str) -> bool:
    try:
        return _DATE.fullmatch(text) is not None and bool(date.fromisoformat(text))
    except ValueError:
        # Python's calendar begins with the year 1; RFC 3339 has a year 0, a leap year as 2000 is.
        return text.startswith("0000") and _is_date(f"2000{text[4:]}")
