"""Senders that take their time: none of them may stop another tenant's uploads."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import anyio.to_thread
import pytest

from registry.digests import Digest
from registry.models import Role
from server.api.streams import Patience, _Body
from server.errors import BodyBrokenOff
from tests.support.remote import remote

SLOTS = 32


def test_one_tenants_trickle_does_not_stop_the_others(tmp_path: Path) -> None:
    """As many connections as there are slots, and one byte over each of them."""
    with remote(tmp_path) as made, ExitStack() as stack:
        url = urlsplit(made.url)
        assert url.hostname is not None
        _, secret = made.world.catalog.issue_key("bank_a", role=Role.TRAINER, actor="test")
        for number in range(SLOTS):
            path = f"/api/v1/tenants/bank_a/blobs/{Digest.of(b'%d' % number)}"
            request = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
            request += "Content-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\n."
            trickle = stack.enter_context(socket.create_connection((url.hostname, url.port or 80)))
            trickle.sendall(request.encode())
        file = tmp_path / "weights"
        file.write_bytes(b"five!")
        deadline = time.monotonic() + 20
        while sum(method == "PUT" for method, _ in made.traffic.requests) < SLOTS:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        start = time.monotonic()
        with made.as_("retail_b", Role.TRAINER) as other:
            other.upload("retail_b", file, Digest.of_file(file))
        assert time.monotonic() - start < 10


async def _received(sizes: list[int], *, every: float, patience: Patience) -> int:
    async def pieces() -> AsyncIterator[bytes]:
        for size in sizes:
            await anyio.sleep(every)
            yield bytes(size)

    def work() -> int:
        body, count = _Body(pieces(), patience), 0
        while data := body.read(1 << 20):
            count += len(data)
        return count

    return await anyio.to_thread.run_sync(work)


PATIENCE = Patience(seconds=0.4, rate=1000)


async def test_a_sender_below_the_rate_is_cut_off() -> None:
    """Never silent for long, and still too slow: 20 bytes a second."""
    start = time.monotonic()
    with pytest.raises(BodyBrokenOff):
        await _received([1] * 1000, every=0.05, patience=PATIENCE)
    assert time.monotonic() - start < 5


async def test_what_came_fast_at_first_earns_no_more_than_everybody_has() -> None:
    with pytest.raises(BodyBrokenOff):
        await _received([1 << 20, *[1] * 1000], every=0.05, patience=PATIENCE)


async def test_a_slow_sender_above_the_rate_is_waited_for() -> None:
    """For four times as long as one who is silent."""
    assert await _received([200] * 32, every=0.05, patience=PATIENCE) == 6400
