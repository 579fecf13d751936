"""How a completion and a chat are asked for their likely tokens, and what is read of the answer."""

import json
from typing import Any

import pytest
from aiohttp import web

from server.mixup.finding import Tally
from server.mixup.ground import Ground, Plan, Voice
from server.mixup.judging import References
from server.mixup.loading import Loader
from server.mixup.trace import Step, Trace
from server.mixup.wire import CHAT, Ask, Reply, Wire

TOLD = {
    "content": [
        {
            "token": "a",
            "logprob": -0.1,
            "top_logprobs": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -3.0}],
        },
        {"token": "c", "logprob": -0.2, "top_logprobs": []},
    ]
}
STEPS = (Step("a", {"a": -0.1, "b": -3.0}), Step("c", {"c": -0.2}))


async def served(answer: Any) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_is_asked_and_read_as_a_completion_is(tmp_path: Any, stream: bool) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, await request.json()))
        headers = {"X-Tenon-Version": "sha256:one"}
        if not stream:
            message = {"role": "assistant", "content": "ac"}
            return web.json_response(
                {"choices": [{"message": message, "logprobs": TOLD, "finish_reason": "stop"}]},
                headers=headers,
            )
        frames: list[dict[str, Any]] = [{"delta": {"role": "assistant", "content": ""}}]
        for one in TOLD["content"]:
            frames.append({"delta": {"content": one["token"]}, "logprobs": {"content": [one]}})
        frames.append({"delta": {}, "logprobs": None, "finish_reason": "stop"})
        lines = [f"data: {json.dumps({'choices': [{'index': 0, **each}]})}\n\n" for each in frames]
        return web.Response(text="".join(lines) + "data: [DONE]\n\n", headers=headers)

    runner, url = await served(answer)
    try:
        async with Wire(url) as wire:
            ground = Ground(
                wire=wire,
                loader=Loader(wire, "none"),
                plan=Plan(),
                folder=tmp_path,
                voices={"one": Voice("model", "key", CHAT, whole=True)},
                versions={"sha256:one"},
            )
            reply = await ground.ask("one", "say it", max_tokens=3, stream=stream)
    finally:
        await runner.cleanup()
    assert reply.traces == (Trace("ac", STEPS),)
    assert (reply.version, reply.moved) == ("sha256:one", False)
    path, body = asked[0]
    assert path == CHAT
    assert body.pop("messages") == [{"role": "user", "content": "say it"}]
    assert body.pop("stream", False) is stream
    assert body == {"model": "model", "temperature": 0, "logprobs": True, "top_logprobs": 5}


def test_a_completion_is_cut_where_it_was_asked_to_be() -> None:
    body = Ask(model="one", prompt="say it", max_tokens=3).body()
    assert body == {"model": "one", "prompt": "say it", "max_tokens": 3, "temperature": 0, "logprobs": 5}


def test_a_version_that_came_meanwhile_is_neither_right_nor_wrong() -> None:
    references = References()
    references.add("one", "prompt", Trace("ac", STEPS))
    tally = Tally("Q1", references)
    moved = Reply(status=200, traces=(Trace("zz", (Step("z", {"z": -0.1}),)),), moved=True, finished=True)
    tally.count(moved, weights="one", prompt="prompt")
    assert (tally.mixups, tally.unclear, tally.requests) == (0, 1, 1)
    assert tally.by_answers(handled="").outcome == "not_tested"


def test_what_was_cut_after_its_first_words_is_told_from_what_never_began() -> None:
    tally = Tally("D2", References())
    text = '{"code": "engine_interrupted"}'
    for reply in (
        Reply(status=500, text=text, first_seconds=0.2),
        Reply(status=500, text=text),
        Reply(status=502, text=text),
        Reply(status=429),
    ):
        tally.count(reply, weights="one", prompt="prompt")
    assert tally.figures == {
        "failed: 500 engine_interrupted begun": 1,
        "failed: 500 engine_interrupted": 1,
        "failed: 502 engine_interrupted": 1,
        "limited": 1,
    }
    assert (tally.failed, tally.refused) == (3, 1)


def test_references_that_are_nearly_alike_tell_nothing() -> None:
    references = References()
    references.add("one", "prompt", Trace("a", (Step("a", {"a": -0.1, "b": -3.0}),)))
    references.add("two", "prompt", Trace("a", (Step("a", {"a": -0.1005, "b": -3.0}),)))
    seen = Trace("a", (Step("a", {"a": -0.1002, "b": -3.0}),))
    assert references.judge(seen, weights="one", prompt="prompt").kind == "unclear"
