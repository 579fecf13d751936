"""Clients that send anything at all: the right refusal, one record, nothing held, nothing told."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from registry.errors import SignatureInvalid, TenonError
from registry.signing.keys import Signer
from router import serving
from router.limits import Limits
from router.receipts import Receipt, issue, verify_receipt
from tests.support.rough import LIMIT, Rough, leaks, responses, rough
from tests.unit.router.driving import QUESTION, until


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Rough]:
    async with rough(tmp_path) as found:
        yield found
        await found.at_rest()


USUAL = orjson.dumps(QUESTION)
NESTED = b'{"model":"assistant","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"x"', b"1", b"{}", USUAL[:-1], USUAL + b"x", USUAL + USUAL,
        b"\xef\xbb\xbf" + USUAL,
        b"\xff\xfe" + USUAL.decode().encode("utf-16-le"), USUAL.replace(b"pay", b"\xff"), b"\x00" + USUAL,
        USUAL.replace(b"pay", b"\\ud800"), USUAL.replace(b"pay", b"\n"), b"{'model': 'assistant'}", NESTED,
        b'{"model":"assistant","messages":[{"role":"user","content":NaN}]}',
        b'{"model":"assistant","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
        b'{"model":"assistant","messages":[{"role":"user","content":"x"}],"max_tokens":1e3}',
        b'{"model":"assistant","messages":[{"role":"user","content":"x"}],"max_tokens":' + b"9" * 5000 + b"}",
        b'{"model":["assistant"],"messages":[]}', b'{"model":"assistant","messages":{"role":"user"}}',
        b'{"model":"assistant","messages":[{"role":"user","content":[' + b"{" * 500 + b"}" * 500 + b"]}]}",
    ],
)  # fmt: skip
async def test_a_body_that_is_no_question(router: Rough, body: bytes) -> None:
    said = await router.ask(router.request(body))
    assert said.status == 400
    assert said.code in {"invalid_request", "unsupported_parameter", "sampling_out_of_bounds"}
    record = await router.outcome(said)
    assert (record.status, record.code, record.tenant) == (400, said.code, "bank_a")
    assert not router.engine.bodies
    assert len(router.outcomes()) == 1


@pytest.mark.parametrize(
    "first", [b'"model":"cashier"', b'"stream":true', b'"messages":[]', b'"m\\u006fdel":"cashier"']
)
async def test_duplicate_keys_are_refused(router: Rough, first: bytes) -> None:
    """A gateway before this router may have judged the other one."""
    said = await router.ask(router.request(b"{" + first + b',"stream":false,' + USUAL[1:]))
    assert (said.status, said.code) == (400, "invalid_request")
    assert (await router.outcome(said)).code == "invalid_request"
    assert not router.engine.bodies


async def test_fifty_megabytes_announced_are_refused_before_they_are_sent(router: Rough) -> None:
    head = router.request(b"", b"Content-Length: %d" % (50 << 20), length=False)
    said = await router.ask(head)
    assert (said.status, said.code) == (413, "request_too_large")
    assert (await router.outcome(said)).code == "request_too_large"


@pytest.mark.parametrize("announced", [True, False])
async def test_fifty_megabytes_sent_are_read_to_the_bound_only(router: Rough, announced: bool) -> None:
    block = b"x" * (1 << 16)
    if announced:
        head = router.request(b"", b"Content-Length: %d" % (50 << 20), length=False)
        parts = [head, *[block] * 800]
    else:
        head = router.request(b"", b"Transfer-Encoding: chunked", length=False)
        parts = [head, *[b"%x\r\n%b\r\n" % (len(block), block)] * 800, b"0\r\n\r\n"]
    await router.say(parts)  # the answer may be lost to a reset; the record is not
    await until(lambda: len(router.outcomes()) == 1)
    assert [record.code for record in router.outcomes()] == ["request_too_large"]
    assert not router.engine.bodies
    assert LIMIT < 50 << 20


async def test_a_body_that_never_comes(tmp_path: Path) -> None:
    limits = Limits(body_bytes=LIMIT, body_seconds=0.05)
    async with rough(tmp_path, limits=limits) as router:
        data = router.request()
        for cut in (len(data) - 1, len(data) - len(USUAL)):
            await router.house.next_second()
            said = await router.ask(data[:cut])
            assert (said.status, said.code) == (408, "request_timeout")
            assert (await router.outcome(said)).code == "request_timeout"
        assert not router.engine.bodies


async def test_a_body_that_is_cut_off(router: Rough) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(router.request()[:-5])
    await writer.drain()
    await until(lambda: router.house.app.drain.busy == 1)
    writer.close()
    await until(lambda: [record.code for record in router.outcomes()] == ["client_closed"])


async def test_heads_that_dribble_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.05)
    async with rough(tmp_path) as router:
        for start in (b"", b"P", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"):
            assert [said.status for said in await router.say(start, seconds=5)] == ([408] if start else [])
        # also as the second request of a connection
        monkeypatch.setattr(serving, "HEAD_SECONDS", 0.5)
        first = router.request(close=False)
        assert [said.status for said in await router.say(first + b"POST /v1", seconds=5)] == [200, 408]
        assert len(router.outcomes()) == 1


async def test_endless_heads_are_cut(router: Rough) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    lines = [b"X-%d: %b\r\n" % (number, b"y" * 1000) for number in range(2000)]
    said = await router.say([head, *lines])
    assert [one.status for one in said] in ([431], [])
    said = await router.say([b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n"])
    assert [one.status for one in said] in ([431], [400], [])
    assert not router.outcomes()


CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(USUAL), USUAL)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], CHUNKED),
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], CHUNKED),
        ([b"Content-Length: %d" % len(USUAL), b"Content-Length: 1"], USUAL),
        ([b"Content-Length: +%d" % len(USUAL)], USUAL),
        ([b"Content-Length: -1"], USUAL),
        ([b"Content-Length: 0x10"], USUAL),
        ([b"Content-Length: %d,%d" % (len(USUAL), len(USUAL))], USUAL),
        ([b"Content-Length: 99999999999999999999999"], USUAL),
        ([b"Transfer-Encoding: xchunked"], CHUNKED),
        ([b"Transfer-Encoding: chunked, identity"], CHUNKED),
        ([b"Transfer-Encoding : chunked"], CHUNKED),
        ([b"Transfer-Encoding: chunked"], b"zz\r\n" + USUAL),
        ([b"Transfer-Encoding: chunked"], b"-5\r\n" + USUAL),
        ([b"Content-Length : %d" % len(USUAL)], USUAL),
        ([b"X-Tenant-ID: bank_a\r\n folded", b"Content-Length: %d" % len(USUAL)], USUAL),
        ([b"X-Ten\x00ant: x", b"Content-Length: %d" % len(USUAL)], USUAL),
        ([b"X-Note: a\x00b", b"Content-Length: %d" % len(USUAL)], USUAL),
        ([b"X-Note: a\nX-Tenant-ID: retail_b", b"Content-Length: %d" % len(USUAL)], USUAL),
        ([b"no colon at all", b"Content-Length: %d" % len(USUAL)], USUAL),
    ],
)  # fmt: skip
async def test_a_head_that_two_servers_would_read_differently(
    router: Rough, headers: list[bytes], body: bytes
) -> None:
    """Never a second request out of the first one's body, and never an answer by another's rules."""
    hidden = router.request(model="cashier")
    for said in await router.say(router.request(body, *headers, length=False) + hidden):
        assert said.status in {400, 403, 408, 413}, said
        assert not leaks(said, "Traceback", "uvicorn", "httptools", "/tmp")
    assert not router.engine.bodies


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ([b"Authorization: Bearer tn_x"], 401, "invalid_api_key"),
        ([b"AUTHORIZATION: "], 401, "invalid_api_key"),
        ([b"X-Tenant-ID: bank_a", b"x-tenant-id: retail_b"], 400, "duplicate_header"),
        ([b"X-Tenant-ID: bank_a", b"x-tenant-id: bank_a"], 400, "duplicate_header"),
        ([b"X-Tenant-ID: retail_b"], 403, "tenant_mismatch"),
        ([b"X-Tenant-ID: BANK_A"], 403, "tenant_mismatch"),
        ([b"X-Tenant-ID: "], 403, "tenant_mismatch"),
        ([b"X-Tenant-ID: bank_a, retail_b"], 403, "tenant_mismatch"),
        (["X-Tenant-ID: bank_\N{CYRILLIC SMALL LETTER A}".encode()], 403, "tenant_mismatch"),
        (["X-Tenant-ID: bank\N{FULLWIDTH LOW LINE}a".encode()], 403, "tenant_mismatch"),
        (["X-Tenant-ID: bank_a\N{ZERO WIDTH SPACE}".encode()], 403, "tenant_mismatch"),
        (["X-Tenant-ID: bank_a\N{NO-BREAK SPACE}".encode("latin-1")], 403, "tenant_mismatch"),
        (["X-Tenant-ID: \N{RIGHT-TO-LEFT OVERRIDE}a_knab".encode()], 403, "tenant_mismatch"),
        ([b"X-Tenant-ID: bank_a%00"], 403, "tenant_mismatch"),
        ([b"X-Tenant-ID: ../retail_b"], 403, "tenant_mismatch"),
    ],
)  # fmt: skip
async def test_who_is_asking_is_never_guessed(
    router: Rough, more: list[bytes], status: int, code: str
) -> None:
    said = await router.ask(router.request(None, *more))
    assert (said.status, said.code) == (status, code)
    assert await router.counted(code) == 1
    assert not router.engine.bodies
    assert not leaks(said, "retail_b")


@pytest.mark.parametrize(
    "value",
    [
        b"", b"Bearer", b"Bearer ", b"Basic YTpi", b"bearer \xff\xfe", b"Bearer tn_" + b"0" * 60_000,
        "Bearer tn_ключ".encode(), b"Bearer tn_a tn_b", b"Bearer eyJhbGciOiJub25lIn0.e30.",
    ],
)  # fmt: skip
async def test_keys_of_every_kind_of_nonsense(router: Rough, value: bytes) -> None:
    said = await router.ask(router.request(None, b"Authorization: " + value, key=False))
    assert said.status == 401
    assert said.headers["www-authenticate"].startswith("Bearer")
    assert await router.counted(said.code) == 1


async def test_engines_never_hear_a_clients_headers(router: Rough) -> None:
    more = [
        b"X-Amzn-SageMaker-Adapter-Identifier: retail_b", b"Cookie: a=b", b"X-Forwarded-For: 10.0.0.1",
        b"X-Request-Id: mine", b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"baggage: who=me", b"Upgrade: websocket", b"Expect: 100-continue", b"TE: trailers",
        b"Forwarded: for=x",
    ]  # fmt: skip
    said = await router.ask(router.request(None, *more))
    assert said.status == 200
    (sent,) = router.engine.requests
    names = {line.split(b":")[0].lower() for line in sent.splitlines()[1:] if line}
    assert names == {b"host", b"content-type", b"accept-encoding", b"user-agent", b"content-length"}
    assert said.headers["x-request-id"] == said.record  # ours, not the client's


OFFERS = {
    "h2c": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAA"),
    "websocket": (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    "both": (b"Connection: upgrade", b"Upgrade: h2c, websocket", b"uPGRADE: x"),
}  # fmt: skip


@pytest.mark.parametrize("offer", OFFERS)
async def test_an_upgrade_is_not_followed(router: Rough, offer: str) -> None:
    """RFC 9110, 7.8: it may be ignored. ``curl --http2`` and Java's own client always offer one."""
    for path in (b"/v1/chat/completions", b"/v1/chat/completions?through=asgi"):
        data = router.request(None, *OFFERS[offer], path=path, close=False)
        found = await router.say(data * 2 + router.request())
        assert [said.status for said in found] == [200] * 3
        assert len({said.record for said in found}) == 3
    assert len(router.engine.bodies) == 6


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize(
    "path", [b"/v1/chat/completions", b"/v1/chat/completions?through=asgi", b"/v1/models"]
)
async def test_a_body_behind_an_upgrade_is_never_a_request(router: Rough, offer: str, path: bytes) -> None:
    """In a segment of its own: the parser has stopped at the head by then, and would begin anew."""
    inner = router.request(model="hidden", close=False)
    data = router.request(inner, *OFFERS[offer], path=path, close=False)
    cut = data.index(b"\r\n\r\n") + 4
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(data[:cut])
    if path == b"/v1/models":  # refused by its head alone
        found = await reader.readuntil(b"}}")
    else:
        found = b""
        await until(lambda: router.house.app.drain.busy == 1)
    writer.write(data[cut:] + router.request())
    found += await asyncio.wait_for(reader.read(), 10)
    writer.close()
    first, second = responses(found)
    assert (first.status, second.status) == (404 if path == b"/v1/models" else 400, 200)
    assert len(router.engine.bodies) == 1
    assert not [record for record in router.outcomes() if record.code == "model_not_found"]


CHUNKS = b"%x\r\n%b\r\n0\r\n" % (len(USUAL), USUAL)


@pytest.mark.parametrize(
    ("path", "method"),
    [(b"/v1/chat/completions", b"POST"), (b"/v1/chat/completions?x=1", b"POST"), (b"/v1/models", b"GET")],
)
async def test_what_follows_a_body_is_no_header(router: Rough, path: bytes, method: bytes) -> None:
    """RFC 9110, 6.5.1. A proxy in front checks, strips and sets headers, and passes trailers on unseen."""
    trailer = b"Authorization: Bearer %b\r\nX-Tenant-ID: bank_a\r\n\r\n" % router.secret.encode()
    head = router.request(b"", b"Transfer-Encoding: chunked", path=path, key=False, length=False)
    said = await router.ask(head.replace(b"POST", method, 1) + CHUNKS + trailer)
    assert (said.status, said.code) == (401, "missing_api_key")
    head = router.request(b"", b"Transfer-Encoding: chunked", path=path, length=False)
    trailer = b"X-Tenant-ID: retail_b\r\nExpect: 100-continue\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    said = await router.ask(head.replace(b"POST", method, 1) + CHUNKS + trailer)
    assert said.status == 200


@pytest.mark.parametrize("key", [True, False])
@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/chat/completions?x=1", b"/v1/models"])
@pytest.mark.parametrize(
    "endless",
    [[b"a:b\r\n" * 10_000] * 200, [b"a: ", *[b"x" * (1 << 16)] * 200], [b"1;" + b"x" * (1 << 16)] * 200],
    ids=["many", "long", "of a chunk"],
)
async def test_endless_trailers_are_cut(router: Rough, endless: list[bytes], path: bytes, key: bool) -> None:
    head = router.request(b"", b"Transfer-Encoding: chunked", path=path, key=key, close=False, length=False)
    first = b"" if endless[0][:1] == b"1" else b"0\r\n"
    for said in await router.say([head + first, *endless], seconds=5):
        assert said.status in {401, 404, 431}
    if path != b"/v1/models":
        if key:
            await until(lambda: bool(router.outcomes()))
            assert [record.code for record in router.outcomes()] == ["client_closed"]
        else:
            assert await router.counted("missing_api_key") == 1
    assert not router.engine.bodies


async def test_bytes_that_are_no_request_are_counted(router: Rough) -> None:
    async def counted() -> float:
        lines = (await router.house.get("/metrics")).body.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(b"tenon_malformed_requests"))

    assert await counted() == 0
    for data in (b"garbage\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"):
        assert (await router.ask(data)).status == 400
    await router.say(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000)
    assert await counted() == 3


async def test_requests_in_one_write_are_answered_in_their_order(router: Rough) -> None:
    first, second = router.request(close=False), router.request(None, model="nothing")
    found = await router.say(first * 5 + second)
    assert [said.status for said in found] == [200] * 5 + [404]
    assert len({said.record for said in found}) == 6
    await router.at_rest()
    assert [record.id for record in router.outcomes()] == [said.record for said in found]


async def test_garbage_behind_a_request_costs_nobody_its_answer(router: Rough) -> None:
    found = await router.say(router.request(close=False) + b"\x16\x03\x01 garbage\r\n\r\n")
    assert [said.status for said in found] == [200]
    assert len(router.outcomes()) == 1


async def test_the_same_bytes_again_are_another_request(router: Rough) -> None:
    """Nothing of a request authorises another one, so a replay is what its key may do anyway: it is answered,
    counted and recorded on its own, under the same digest of its body."""
    data = router.request()
    first, second = [await router.ask(data) for _ in range(2)]
    one, two = await router.outcome(first), await router.outcome(second)
    assert one.id != two.id
    assert one.request == two.request
    assert two.seq > one.seq
    assert len(router.engine.bodies) == 2


async def receipt(router: Rough, record: str, secret: str) -> tuple[int, bytes]:
    lines = f"Host: x\r\nConnection: close\r\nAuthorization: Bearer {secret}\r\n\r\n"
    said = await router.ask(f"GET /v1/receipts/{record} HTTP/1.1\r\n{lines}".encode())
    return said.status, said.body


async def test_forged_receipts(router: Rough) -> None:
    said = await router.ask(router.request())
    status, body = await receipt(router, said.record, router.secret)
    assert status == 200
    trusted = router.house.trusted
    assert verify_receipt(body, trusted).id == said.record
    whole = Receipt.parse(body)
    line = base64.b64decode(whole.record)
    changed = line.replace(b'"bank_a"', b'"retail_b"')
    stranger = Signer.generate("router")
    forgeries = [
        whole.model_copy(update={"record": base64.b64encode(changed).decode()}).canonical(),
        issue(changed, stranger).canonical(),
        issue(line, stranger).canonical(),
        body.replace(b"vnd.tenon.receipt", b"vnd.tenon.record-head"),
        whole.model_copy(update={"kind": "tenon.receipt/v2"}).canonical(),
        body[:-2],
        b"{}",
        b"[" * 100_000,
    ]
    for forged in forgeries:
        assert forged != body
        with pytest.raises(TenonError):
            verify_receipt(forged, trusted)
    with pytest.raises(SignatureInvalid):
        verify_receipt(body, {stranger.public.id: stranger.public})


async def test_another_tenants_receipt_is_one_that_never_was(router: Rough) -> None:
    said = await router.ask(router.request())
    other = router.house.scene.key("retail_b")
    await router.house.publish()
    theirs = await receipt(router, said.record, other)
    never = await receipt(router, "rec-" + "0" * 32, other)
    assert theirs == never
    assert theirs[0] == 404
    for odd in ("", "..%2f..%2fetc", "x" * 5000, "rec-%00", "%F0%9F%92%A9"):
        assert (await receipt(router, odd, other))[0] in {400, 404}


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v1/chat/completions HTTP/1.1", b"POST /v1/chat/completions/ HTTP/1.1",
        b"POST //v1/chat/completions HTTP/1.1", b"POST /v1%2fchat/completions HTTP/1.1",
        b"POST /v1/chat/completion%73 HTTP/1.1",
        b"POST /invocations HTTP/1.1", b"POST /v1/load_lora_adapter HTTP/1.1",
        b"POST /v1/../invocations HTTP/1.1",
        b"POST /v1/chat/completions%00 HTTP/1.1", b"DELETE /v1/models HTTP/1.1", b"POST * HTTP/1.1",
        b"OPTIONS * HTTP/1.1", b"CONNECT router:443 HTTP/1.1", b"PRI * HTTP/2.0",
        b"POST /v1/chat/completions HTTP/9.9",
        b"post /v1/chat/completions HTTP/1.1", b"POST /v1/chat/completions",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"POST http://engine-0/v1/load_lora_adapter HTTP/1.1",
    ],
)  # fmt: skip
async def test_only_the_api_is_there(router: Rough, line: bytes) -> None:
    rest = b"\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"
    found = await router.say(line + rest % (router.secret.encode(), len(USUAL), USUAL))
    assert {said.status for said in found} <= {400, 404}
    for said in found:
        assert not leaks(said, "Traceback", "uvicorn", "httptools", "engine-0")
    assert not router.engine.bodies
    assert not router.outcomes()


@pytest.mark.parametrize(
    "model",
    [
        "", "a" * 100_000, "../assistant", "assistant\x00", "ASSISTANT", "cashier", "lora-x",
        "sha256:" + "0" * 64,
        "\N{CYRILLIC SMALL LETTER A}ssistant", "assistant ",
    ],
)  # fmt: skip
async def test_a_name_that_is_not_yours_is_a_name_that_is_not(router: Rough, model: str) -> None:
    said = await router.ask(router.request(model=model))
    never = await router.ask(router.request(model="never-was"))
    assert said.status in {400, 404}
    if said.status == 404:
        assert said.body == never.body
    record = await router.outcome(said)
    assert record.model is None  # what a client made up is text of its own
    assert not router.engine.bodies


async def test_a_hundred_clients_that_all_leave(router: Rough) -> None:
    """Hung up at every moment of a request: each has one record, and nothing is left behind."""
    data = router.request(None, stream=True)

    async def leave(after: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", router.port)
        writer.write(data[: len(data) - max(0, 20 - after)])
        await writer.drain()
        for _ in range(after):
            await asyncio.sleep(0)
        writer.transport.abort()

    await asyncio.gather(*(leave(number) for number in range(100)))
    assert (await router.ask(router.request())).status == 200
    await router.at_rest()
    records = router.outcomes()
    assert len({record.id for record in records}) == len(records)
    assert {record.code for record in records} <= {None, "client_closed", "request_timeout"}
