"""Logs that machines read: every line one JSON object, and one line a request where that is asked for.

The access log holds what a record holds of names and numbers, and nothing of a prompt or an answer.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from registry.clock import Clock, stamp
from router.moments import Moments
from router.records.record import Trace

_MOST_WAITING = 20_000
"""Lines in memory while whoever reads standard output does not; further ones are dropped and counted."""
_FLUSH_SECONDS = 0.2


class JsonLines(logging.Formatter):
    """For ``logging``: time, level, logger, message and, if there is one, the exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


class AccessLog:
    """Collects lines and writes them together, in a thread: a full pipe must not stop requests."""

    def __init__(self, write: Callable[[bytes], None], clock: Clock) -> None:
        self._write = write
        self._clock = clock
        self._lines: list[bytes] = []
        self._writing: asyncio.Task[None] | None = None
        self.dropped = 0

    def finished(self, trace: Trace, moments: Moments) -> None:
        if len(self._lines) >= _MOST_WAITING:
            self.dropped += 1
            return
        line = {
            "time": stamp(self._clock.now()),
            "logger": "tenon.access",
            "request": trace.id,
            "path": moments.path,
            "tenant": trace.tenant,
            "key": trace.key,
            "model": trace.model,
            "route": trace.route,
            "adapter": trace.adapter,
            "version": trace.version,
            "canary": trace.canary,
            "engine": trace.engine,
            "status": trace.status,
            "code": trace.code,
            "stream": trace.stream,
            "prompt_tokens": trace.prompt_tokens,
            "completion_tokens": trace.completion_tokens,
            "finish_reasons": trace.finish_reasons,
            "retries": moments.retries,
            "ms": _ms(moments.whole),
            "queue_ms": _ms(moments.queued),
            "first_token_ms": _ms(moments.first_token) if trace.stream and moments.first else None,
            "engine_ms": _ms(moments.upstream) if moments.last else None,
            "added_ms": _ms(moments.added),
            "trace": moments.context.trace if moments.context is not None else None,
        }
        self._lines.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._flush())

    async def close(self) -> None:
        """Write what waits."""
        if self._writing is not None:
            await self._writing
        self._emit(self._take())

    async def _flush(self) -> None:
        while self._lines:
            await asyncio.sleep(_FLUSH_SECONDS)
            await asyncio.to_thread(self._emit, self._take())

    def _take(self) -> list[bytes]:
        lines, self._lines = self._lines, []
        return lines

    def _emit(self, lines: list[bytes]) -> None:
        try:
            self._write(b"".join(lines))
        except OSError:  # nobody reads standard output any more; requests go on
            self.dropped += len(lines)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
