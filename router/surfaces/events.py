"""Server-sent events, split whatever way the bytes were cut."""

import re

from router.errors import EngineAnswered

MOST_EVENT_BYTES = 1 << 20
# A CR at the very end of what arrived may be the first half of CRLF: wait for the next byte.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


class EventReader:
    """``data`` of each complete event, whatever way the bytes were cut (HTML standard, 9.2.6).

    An event that the stream's end cuts off is never returned.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Events completed by ``piece``. Raises EngineAnswered for one beyond MOST_EVENT_BYTES."""
        if not self._rest and not self._data and piece.endswith(b"\n\n") and b"\r" not in piece:
            # Whole events of one line each, as vLLM writes them: a tenth of the general way's time.
            blocks = piece[:-2].split(b"\n\n")
            for block in blocks:
                if b"\n" in block or not block.startswith(b"data: "):
                    break
            else:
                return [block[6:] for block in blocks]
        text = self._rest + piece
        events: list[bytes] = []
        at = 0
        for end in _LINE_END.finditer(text):
            self._line(text[at : end.start()], events)
            at = end.end()
        self._rest = text[at:]
        if len(self._rest) + self._size > MOST_EVENT_BYTES:
            raise EngineAnswered
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data, self._size = [], 0
        elif line.startswith(b"data:"):
            value = line[6:] if line.startswith(b"data: ") else line[5:]
            self._data.append(value)
            self._size += len(value)
