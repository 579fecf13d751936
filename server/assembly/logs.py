"""How every process writes its log."""

import logging
import sys

from router.logs import JsonLines

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def start(level: str, form: str) -> None:
    """``form``: ``text`` or ``json``. To standard error: standard output is the access log's."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonLines() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[lines], force=True)


def write_access(lines: bytes) -> None:
    """Past Python's own buffer: whole lines, also when the process is killed."""
    sys.stdout.buffer.write(lines)
    sys.stdout.buffer.flush()
