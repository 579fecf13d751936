"""However the network cuts a stream, the client gets the same bytes, and never an unvalidated end."""

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from registry.models import Policy
from router.errors import RouterError
from router.policies import compile_policy
from router.surfaces.chat.stream import DONE, StreamedAnswer
from router.surfaces.events import EventReader
from router.surfaces.surface import Order
from router.testing import chunk, stream

POLICY = Policy(tenant="bank_a", name="house", json_schema='{"type":"array","items":{"type":"integer"}}')
FREE = Policy(tenant="bank_a", name="free")
BODY = {"model": "tenon-x"}


def order(policy: Policy, choices: int = 1) -> Order:
    return Order(
        body=b"",
        engine_name="tenon-x",
        public_name="assistant",
        choices=choices,
        stream=True,
        include_usage=False,
        logprobs=False,
        policy=compile_policy(policy.identity(), policy),
    )


def run(data: bytes, cuts: list[int], policy: Policy, choices: int = 1) -> tuple[bytes, bytes]:
    """(sent under way, held-back end)."""
    reader, answer = EventReader(), StreamedAnswer(order(policy, choices), "chatcmpl-1")
    sent: list[bytes] = []
    edges = [0, *sorted(cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        sent.extend(answer.accept(event) for event in reader.feed(data[start:end]) if event != b"[DONE]")
    return b"".join(sent), answer.finish()


ENDINGS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(text=st.text(max_size=20), ending=ENDINGS, seed=st.data())
def test_every_way_to_cut_gives_the_same_bytes(text: str, ending: bytes, seed: Any) -> None:
    data = b"".join(stream(BODY, text)).replace(b"\n", ending)
    cuts = seed.draw(st.lists(st.integers(0, len(data)), max_size=8))
    assert run(data, cuts, FREE) == run(data, [], FREE)


def test_a_line_end_that_is_cut_in_two_is_one_line_end() -> None:
    data = b"data: a\r\ndata: b\r\n\r\n"
    for cut in range(len(data)):
        reader = EventReader()
        assert reader.feed(data[:cut]) + reader.feed(data[cut:]) == [b"a\nb"]


def test_cut_at_every_single_byte() -> None:
    for ending in (b"\n", b"\r\n", b"\r"):
        data = b"".join(stream(BODY, "héllo")).replace(b"\n", ending)
        expected = run(b"".join(stream(BODY, "héllo")), [], FREE)
        assert run(data, list(range(len(data))), FREE) == expected
        for cut in range(len(data)):
            assert run(data, [cut], FREE) == expected


@given(
    data=st.lists(
        st.sampled_from(
            [b"data: x\n", b"data:y\n", b"\n", b": c\n", b"event: e\n", b"data\n", b"\r", b"data: z\r\n"]
        )
    ),
    cuts=st.lists(st.integers(0, 200), max_size=10),
)
def test_the_reader_does_not_depend_on_cuts(data: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(data)
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    reader = EventReader()
    found = [e for a, b in itertools.pairwise(edges) for e in reader.feed(whole[a:b])]
    # The trailing CR of a stream may belong to a CRLF that never comes: one more LF settles both.
    assert found + reader.feed(b"\n") == EventReader().feed(whole + b"\n")


@given(
    text=st.one_of(st.text("[]0123456789, -", max_size=12), st.lists(st.integers()).map(str)),
    finish=st.sampled_from(["stop", "length", "abort", None]),
)
def test_an_end_means_that_the_whole_text_satisfied_the_policy(text: str, finish: str | None) -> None:
    data = b"".join([*(chunk(BODY, letter) for letter in text), chunk(BODY, "", finish=finish), DONE])
    try:
        sent, end = run(data, [], POLICY)
    except RouterError:
        return
    assert b'"finish_reason":"' not in sent
    assert DONE not in sent
    assert end.endswith(DONE)
    assert finish == "stop"
    value = json.loads(text)
    assert isinstance(value, list)
    assert all(isinstance(item, int) for item in value)


STRANGE = st.sampled_from(
    [
        b'"a","role":"assistant"',
        b'"a"},"finish_reason":"stop","delta":{"content":"b"',
        b"null",
        b"3",
        b'"\\ud800"',
        b'"a" "b"',
        b"",
        b'"\\u0041"',
    ]
)


@given(texts=st.lists(st.one_of(st.text(max_size=6), STRANGE), min_size=1, max_size=12), n=st.integers(1, 2))
def test_what_is_known_of_an_event_changes_nothing(texts: list[str | bytes], n: int) -> None:
    """Events are recognised by what stood around the text of earlier ones; without that it is the same."""
    answers = [StreamedAnswer(order(FREE, n), "chatcmpl-1") for _ in range(2)]
    first = [chunk(BODY, "known", index=i)[6:-2] for i in range(n)]
    for number, text in enumerate(texts):
        raw = text if isinstance(text, bytes) else json.dumps(text, ensure_ascii=number % 2 == 0).encode()
        event = first[number % n].replace(b'"known"', raw)
        told: list[object] = []
        for which, answer in enumerate(answers):
            if which == 1:
                answer._shapes.clear()
            try:
                sent = answer.accept(event)
            except RouterError as error:
                told.append(error.code)
            else:
                told.append([json.loads(line[6:]) for line in sent.split(b"\n\n") if line])
        assert told[0] == told[1]
    assert answers[0].contents == answers[1].contents
    assert answers[0].finish_reasons == answers[1].finish_reasons
