"""Ways in that lead past the name: no key (D8), a header (D9), no name (D10), a path (D14), D11."""

import asyncio

from server.mixup.finding import Finding
from server.mixup.ground import Ground

_CLOSED = frozenset({401, 403, 404, 405})


async def without_key(ground: Ground) -> Finding:
    """D8: reached counts, whatever the endpoint then says of an empty body."""
    tally = ground.tally("D8")
    loads, unloads = ground.loader.load_path, ground.loader.unload_path
    calls: list[tuple[str, str, object]] = [
        ("POST", loads, {}),
        ("POST", unloads, {}),
        ("POST", "/adapters", {}),
        ("DELETE", "/adapters/nobody", None),
        ("POST", "/invocations", {}),
        ("POST", "/tokenize", {}),
        ("POST", "/v1/completions", {}),
        ("GET", "/v1/models", None),
    ]
    open_ = []
    for method, path, body in calls:
        status, _ = await ground.wire.call(method, path, body, bare=True, limit=20)
        tally.note(status)
        if status and status not in _CLOSED:
            open_.append(f"{method} {path}")
    if open_:
        return tally.finding("present", "answered without a key: " + ", ".join(open_))
    if tally.failed:
        return tally.finding("not_tested", f"{tally.failed} endpoints gave no answer at all")
    return tally.finding("handled", "nothing that adapters are reached by answers without a key")


async def sagemaker(ground: Ground) -> Finding:
    """D9"""
    tally = ground.tally("D9")
    one, other = ground.weights()[:2]
    prompt = ground.prompts[0]
    for headers in ({}, {"X-Amzn-SageMaker-Adapter-Identifier": ground.name_of(other)}):
        for elsewhere in ({"path": "/invocations"}, {}):
            reply = await ground.ask(ground.name_of(one), prompt, headers=headers, **elsewhere)
            tally.count(reply, weights=one, prompt=prompt)
    if tally.mixups:
        return tally.finding("present", "the body's model was not the one that answered")
    return tally.by_answers(
        handled="no header and no path replaces the model of the body", refusing_handles=True
    )


async def without_model(ground: Ground) -> Finding:
    """D10"""
    tally = ground.tally("D10")
    answered = []
    for shown, extra in (("missing", {}), ("null", {"model": None}), ("empty", {"model": ""})):
        reply = await ground.ask(None, ground.prompts[0], max_tokens=1, extra=extra)
        tally.note(reply.status)
        if reply.status == 200:
            answered.append(shown)
    if answered:
        return tally.finding("present", f"answered with 200 though the model was {', '.join(answered)}")
    if tally.refused < tally.requests:
        return tally.finding("not_tested", f"only {tally.refused} of {tally.requests} requests were refused")
    return tally.finding("handled", "refused without a model")


async def prompt_logprobs(ground: Ground) -> Finding:
    """D11: can end the server."""
    tally = ground.tally("D11")
    one, other = (await ground.long_ones(2))[:2]
    for extra in ({"prompt_logprobs": 1}, {"echo": True}):
        running = asyncio.create_task(
            ground.ask(
                ground.name_of(one),
                ground.long_prompt,
                max_tokens=ground.plan.long_tokens,
                stream=True,
                **ground.long(),
            )
        )
        await asyncio.sleep(ground.plan.head_start)
        asked = await ground.ask(ground.name_of(other), ground.prompts[1], extra=extra)
        tally.note(asked.status)
        tally.count(await running, weights=one, prompt=ground.long_prompt)
        if not await ground.wire.alive():
            return tally.finding("present", f"one request with {next(iter(extra))} ended the server")
    if tally.mixups or tally.failed:
        return tally.finding("present", "the answers beside it were harmed")
    return tally.by_answers(handled="refused, or answered without harm to the answers beside it")


async def paths(ground: Ground) -> Finding:
    """D14: names that would lead to an adapter's folder if they were joined into a path."""
    tally = ground.tally("D14")
    folder = ground.folder_of(ground.weights()[0])
    names = [
        f"../weights/{folder.name}",
        str(folder),
        "../../../../etc/passwd",
        f"./{folder.name}",
        "a\\..\\b",
    ]
    answered = 0
    for name in names:
        reply = await ground.ask(name, ground.prompts[0], max_tokens=1)
        tally.note(reply.status)
        answered += reply.status == 200
    if answered:
        return tally.finding("present", f"{answered} names that are paths were opened and answered")
    if tally.failed:
        return tally.finding("present", f"{tally.failed} names that are paths broke the request")
    return tally.finding("handled", "a name is never joined into a path")
