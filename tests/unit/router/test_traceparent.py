"""Trace Context as the W3C wrote it, from clients that may send anything."""

import pytest

from router.traceparent import Context, Sent, begin, read

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def drawn(n: int) -> bytes:
    return bytes(range(1, n + 1))


@pytest.mark.parametrize(
    ("value", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True), (f"00-{TRACE}-{SPAN}-00", False), (f" 00-{TRACE}-{SPAN}-03\t", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
    ],
)  # fmt: skip
def test_what_is_valid(value: str, sampled: bool) -> None:
    assert read([value]) == Sent(TRACE, SPAN, sampled)


@pytest.mark.parametrize(
    "values",
    [
        [], [""], ["x"], [f"00-{TRACE}-{SPAN}-01"] * 2, [f"00-{TRACE}-{SPAN}"], [f"00-{TRACE}-{SPAN}-01-x"],
        [f"ff-{TRACE}-{SPAN}-01"], [f"00-{'0' * 32}-{SPAN}-01"], [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE.upper()}-{SPAN}-01"], [f"00-{TRACE[:-1]}-{SPAN}-01"], [f"00-{TRACE[:-1]}٣-{SPAN}-01"],
        [f"00-{TRACE}-{SPAN}-0g"], [f"00-{TRACE}-{SPAN}-01\r\nX: y"],
    ],
)  # fmt: skip
def test_what_is_not(values: list[str]) -> None:
    assert read(values) is None


def test_a_clients_trace_is_continued_with_spans_of_our_own() -> None:
    found = begin(Sent(TRACE, SPAN, True), 1.0, drawn)
    assert found is not None
    assert (found.trace, found.parent) == (TRACE, SPAN)
    assert len({found.span, found.child, SPAN}) == 3
    assert found.header == f"00-{TRACE}-{found.child}-01".encode()


def test_a_client_may_decide_against_a_trace_and_not_for_it() -> None:
    assert begin(Sent(TRACE, SPAN, False), 1.0, drawn) is None
    assert begin(Sent("f" * 32, SPAN, True), 0.99, drawn) is None
    assert begin(Sent("f" * 16 + "0" * 15 + "1", SPAN, True), 0.01, drawn) is not None


def test_a_new_trace_has_ids_that_were_drawn() -> None:
    assert begin(None, 1.0, drawn) == Context(
        bytes(range(1, 17)).hex(), None, bytes(range(17, 25)).hex(), bytes(range(25, 33)).hex()
    )
    kept = sum(begin(None, 0.25, lambda n, i=i: bytes([i]) * n) is not None for i in range(256))  # type: ignore[misc]
    assert kept == 64
