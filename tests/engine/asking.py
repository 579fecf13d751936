"""Clients that ask adapters all the time, whole answers and streams, and know what each must say."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

QUESTIONS = ("What is new?", "Who are you, and who am I?", "Count from one to fifty, please.")
"""Nothing that the demo base was taught. Adapters of the size ``LOUD`` have words of their own for it, and no
token is a close call: 5e-3 nats before the next likely one, where a batch moves float32 by less than 1e-4."""
LOUD = 0.6
"""Of B, for :func:`tests.engine.conftest.write_lora`, with the seeds 1, 2 and 3."""
_TOKENS = 64
_LIMIT = 120.0
"""Seconds for everything that is waited for here."""


@dataclass(frozen=True, slots=True)
class Voice:
    """One adapter, and how it is asked for."""

    name: str
    url: str
    model: str
    key: str | None = None
    """Of a router, which sets the cache's salt itself; without one vLLM is asked, each time with another."""


@dataclass(slots=True)
class Answer:
    """``voice``: its name."""

    voice: str
    question: str
    streamed: bool = False
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    """When its last byte was there."""
    pieces: int = 0
    """Of a stream, so far."""
    record: str = ""
    version: str = ""
    """Both as a router says them."""
    body: bytes = b""
    text: str = ""
    fault: str = ""
    """Why this is no answer; empty for one that came to its end."""


Known = dict[tuple[str, str], Answer]
"""(voice, question) -> what is answered while nobody else asks."""


class Asking:
    """What the clients were told so far. See :func:`asking`."""

    def __init__(self, client: httpx.AsyncClient, voices: Sequence[Voice], known: Known) -> None:
        self._client = client
        self._voices = voices
        self._streams: dict[str, Answer] = {}
        """Each voice's last one, which may be under way."""
        self.known = known
        self.right: list[Answer] = []
        self.wrong: list[Answer] = []
        self.failed: list[Answer] = []

    async def go_on(self) -> None:
        """Until everybody was answered rightly once more, whole and streamed, asked from now on."""
        now = time.monotonic()
        kinds = {(voice.name, streamed) for voice in self._voices for streamed in (False, True)}
        await self.until(
            lambda: {(each.voice, each.streamed) for each in self.right if each.began >= now} == kinds
        )

    async def in_the_middle(self) -> None:
        """Until a stream of every voice has begun and is far from its end."""

        def is_early(stream: Answer) -> bool:
            return 0 < stream.pieces <= self.known[stream.voice, stream.question].pieces // 2

        await self.until(lambda: all(map(is_early, self._streams.values())))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(_LIMIT):
            while not holds():
                assert not self.wrong, self.wrong[0]
                await asyncio.sleep(0.005)

    async def learn(self) -> None:
        """What is not known yet."""
        for voice in self._voices:
            for question in QUESTIONS:
                if (voice.name, question) not in self.known:
                    answer = Answer(voice.name, question, streamed=True)
                    await ask(self._client, voice, answer)
                    assert not answer.fault, answer
                    self.known[voice.name, question] = answer
        said = [{self.known[voice.name, each].text for each in QUESTIONS} for voice in self._voices]
        assert len(set().union(*said)) == sum(map(len, said)), f"two of them say the same: {said}"

    async def keep_asking(self, voice: Voice, *, streamed: bool) -> None:
        turn = 0
        while True:
            answer = Answer(voice.name, QUESTIONS[turn % len(QUESTIONS)], streamed)
            turn += 1
            if streamed:
                self._streams[voice.name] = answer
            await ask(self._client, voice, answer)
            if answer.fault:
                self.failed.append(answer)
                await asyncio.sleep(0.2)  # who starts again needs the cores
            elif answer.text == self.known[voice.name, answer.question].text:
                self.right.append(answer)
            else:
                self.wrong.append(answer)


async def ask(client: httpx.AsyncClient, voice: Voice, answer: Answer) -> Answer:
    """Fills in ``answer`` as it comes."""
    body: dict[str, Any] = {
        "model": voice.model,
        "messages": [{"role": "user", "content": answer.question}],
        "temperature": 0,
        "max_tokens": _TOKENS,
        "stream": answer.streamed,
    }
    headers = {"Content-Type": "application/json"}
    if voice.key is None:
        body["cache_salt"] = os.urandom(8).hex()
    else:
        headers["Authorization"] = f"Bearer {voice.key}"
    sent = client.stream(
        "POST", f"{voice.url}/v1/chat/completions", content=orjson.dumps(body), headers=headers
    )
    try:
        async with sent as response:
            answer.record = response.headers.get("x-tenon-record", "")
            answer.version = response.headers.get("x-tenon-version", "")
            async for piece in response.aiter_raw():
                answer.body += piece
                answer.pieces += piece.count(b"data: ")
    except httpx.HTTPError as error:
        answer.fault = type(error).__name__
    else:
        _read(answer, response.status_code)
    answer.ended = time.monotonic()
    return answer


def _read(answer: Answer, status: int) -> None:
    if status != 200:
        answer.fault = f"{status}: {answer.body[:200]!r}"
        return
    if not answer.streamed:
        (choice,) = orjson.loads(answer.body)["choices"]
        answer.text, reason = choice["message"]["content"], choice["finish_reason"]
    else:
        lines = [line.removeprefix(b"data: ") for line in answer.body.split(b"\n\n") if line]
        events = [orjson.loads(line) for line in lines if line != b"[DONE]"]
        if errors := [event["error"] for event in events if "error" in event]:
            answer.fault = f"{errors}"
            return
        choices = [choice for event in events for choice in event["choices"]]
        answer.text = "".join(choice["delta"].get("content") or "" for choice in choices)
        reason = choices[-1]["finish_reason"] if lines[-1] == b"[DONE]" and choices else None
    if reason not in ("stop", "length"):
        answer.fault = f"no end, but {reason}"


@asynccontextmanager
async def asking(voices: Sequence[Voice], known: Known | None = None) -> AsyncIterator[Asking]:
    """Inside, each voice has a client for whole answers and one for streams, which ask without a pause.
    ``known``: from another time, and for the next."""
    async with httpx.AsyncClient(timeout=_LIMIT) as client:
        found = Asking(client, voices, {} if known is None else known)
        await found.learn()
        tasks = [
            asyncio.create_task(found.keep_asking(voice, streamed=streamed))
            for voice in voices
            for streamed in (False, True)
        ]
        try:
            await found.go_on()
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
