"""One JSON line a request, when an operator asks for it, without a word of anybody's prompt."""

import asyncio
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from registry.clock import ManualClock
from router import logs
from router.logs import AccessLog, JsonLines
from router.moments import Moments
from router.records.record import Trace
from tests.unit.router.driving import House


class Paper:
    def __init__(self) -> None:
        self.text = b""

    def write(self, data: bytes) -> None:
        self.text += data

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.text.splitlines()]


async def test_a_line_a_request(tmp_path: Path) -> None:
    paper = Paper()
    house = House(tmp_path, access=AccessLog(paper.write, ManualClock()))
    house.scene.engine()
    bank = house.scene.serve("bank_a")
    await house.app.start()
    await house.publish()
    answered = await house.ask(bank, {"messages": [{"role": "user", "content": "zebra"}]})
    refused = await house.ask("tn_lynx")
    await house.app.stop()
    first, second = paper.lines
    assert first["request"] == answered.record
    assert (first["tenant"], first["model"], first["adapter"], first["status"], first["code"]) == (
        "bank_a", "assistant", "desk", 200, None,
    )  # fmt: skip
    assert first["path"] == "/v1/chat/completions"
    assert (first["prompt_tokens"], first["completion_tokens"], first["engine_ms"]) == (7, 3, 0)
    assert second["request"] == refused.headers["x-request-id"]
    assert (second["tenant"], second["status"], second["code"], second["engine_ms"]) == (
        None, 401, "invalid_api_key", None,
    )  # fmt: skip
    for word in (b"zebra", b"fine", b"lynx", bank.encode()):
        assert word not in paper.text


async def test_lines_are_written_without_waiting_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_FLUSH_SECONDS", 0.001)
    wrote = threading.Event()
    paper = Paper()

    def write(data: bytes) -> None:
        paper.write(data)
        wrote.set()

    access = AccessLog(write, ManualClock())
    for _ in range(2):
        wrote.clear()
        access.finished(Trace(id="rec-1"), Moments(1.0, ended=2.0))
        assert await asyncio.to_thread(wrote.wait, 10)
    await access.close()
    assert [line["ms"] for line in paper.lines] == [1000, 1000]


async def test_a_reader_that_stopped_reading_costs_lines_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "_MOST_WAITING", 5)

    def write(_: bytes) -> None:
        raise BrokenPipeError

    access = AccessLog(write, ManualClock())
    for _ in range(7):
        access.finished(Trace(id="rec-1"), Moments(1.0, ended=2.0))
    assert access.dropped == 2
    await access.close()
    assert access.dropped == 7


def test_every_line_of_the_processs_log_is_json() -> None:
    try:
        raise ValueError("of\ntwo lines")
    except ValueError:
        about = sys.exc_info()
    record = logging.LogRecord("router.feed", logging.WARNING, "", 0, 'say "%s"', ("a\nb",), about)
    text = JsonLines().format(record)
    assert "\n" not in text
    line = orjson.loads(text)
    assert (line["level"], line["logger"], line["message"]) == ("warning", "router.feed", 'say "a\nb"')
    assert "ValueError: of\ntwo lines" in line["exception"]
    assert line["time"].endswith("+00:00")
