"""Bytes that were no HTTP request: nobody knows whose they were, and they are on record all the same."""

from enum import StrEnum

from router.groups import Groups


class Fault(StrEnum):
    NOT_HTTP = "not_http"
    AMBIGUOUS_LENGTH = "ambiguous_length"
    """Two servers could find two ends of it: request smuggling (RFC 9112, 11.2)."""
    HEAD_TOO_LARGE = "head_too_large"
    TRAILERS_TOO_LARGE = "trailers_too_large"
    HEAD_TIMEOUT = "head_timeout"

    @property
    def status(self) -> int:
        return _STATUS.get(self, 400)


_STATUS = {Fault.HEAD_TOO_LARGE: 431, Fault.TRAILERS_TOO_LARGE: 431, Fault.HEAD_TIMEOUT: 408}


class Malformed:
    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self.counts: dict[str, float] = {fault.value: 0 for fault in Fault}

    def note(self, fault: Fault) -> None:
        """Never waits."""
        self.counts[fault] += 1
        self._groups.malformed(fault.value, fault.status)
