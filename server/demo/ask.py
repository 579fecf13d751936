"""The demo's questions, put the way an application puts them: with the ``openai`` package."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODEL = "assistant"


@dataclass(frozen=True, slots=True)
class Answer:
    tenant: str
    content: str
    version: str
    engine: str
    record: str
    milliseconds: float

    @property
    def fields(self) -> dict[str, Any]:
        parsed = json.loads(self.content)
        if not isinstance(parsed, dict):
            raise TypeError("the policy of every demo tenant asks for an object")
        return parsed


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that must not work, and how it was refused."""

    what: str
    expected: int
    status: int
    code: str

    @property
    def refused(self) -> bool:
        return self.status == self.expected


def ask(url: str, *, tenant: str, key: str, question: str) -> Answer:
    from openai import OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        began = time.perf_counter()
        raw = client.chat.completions.with_raw_response.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            extra_headers={"X-Tenant-ID": tenant},
        )
        spent = (time.perf_counter() - began) * 1000
        content = raw.parse().choices[0].message.content or ""
    headers = raw.headers
    return Answer(
        tenant=tenant,
        content=content,
        version=headers["x-tenon-version"],
        engine=headers["x-tenon-engine"],
        record=headers["x-tenon-record"],
        milliseconds=spent,
    )


def stream(url: str, *, tenant: str, key: str, question: str) -> tuple[str, str | None]:
    """The same question streamed; (whole text, finish reason)."""
    from openai import OpenAI

    text, reason = "", None
    with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        for event in client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            stream=True,
            extra_headers={"X-Tenant-ID": tenant},
        ):
            for choice in event.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
    return text, reason


def attempts(url: str, keys: Mapping[str, str], versions: Mapping[str, str], question: str) -> list[Attempt]:
    """Every wrong way in that the demo shows."""
    first, second = list(keys)[:2]
    engine_side = "tenon-" + versions[second].removeprefix("sha256:")
    return [
        _attempt(url, "no key", 401, question, key=None),
        _attempt(url, "a key that was never issued", 401, question, key="tn_nobody_" + "0" * 43),
        _attempt(url, f"{first}'s key, X-Tenant-ID: {second}", 403, question, key=keys[first], tenant=second),
        _attempt(
            url,
            f"{first} asks for {second}/assistant",
            404,
            question,
            key=keys[first],
            model=f"{second}/assistant",
        ),
        _attempt(
            url, f"{first} asks for {second}'s engine name", 404, question, key=keys[first], model=engine_side
        ),
        _attempt(
            url, f"{first} asks for a name nobody has", 404, question, key=keys[first], model="no-such-model"
        ),
        _attempt(url, "an answer cut off by max_tokens", 422, question, key=keys[first], max_tokens=8),
    ]


def receipt(url: str, *, key: str, record: str) -> bytes:
    request = urllib.request.Request(
        f"{url}/v1/receipts/{record}", headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def _attempt(
    url: str,
    what: str,
    expected: int,
    question: str,
    *,
    key: str | None,
    tenant: str | None = None,
    model: str = MODEL,
    max_tokens: int | None = None,
) -> Attempt:
    from openai import APIStatusError, OpenAI

    headers = {"X-Tenant-ID": tenant} if tenant else {}
    if key is None:
        return _without_key(url, what, expected, question)
    with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
        try:
            client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                extra_headers=headers,
                extra_body={} if max_tokens is None else {"max_tokens": max_tokens},
            )
        except APIStatusError as error:
            return Attempt(what, expected, error.status_code, str(error.code))
    return Attempt(what, expected, 200, "answered")


def _without_key(url: str, what: str, expected: int, question: str) -> Attempt:
    """By hand: the openai client refuses to be made without a key."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": question}]}).encode()
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return Attempt(what, expected, answer.status, "answered")
    except urllib.error.HTTPError as error:
        return Attempt(what, expected, error.code, str(json.loads(error.read())["error"]["code"]))
