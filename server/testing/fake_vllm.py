"""A vLLM without a model, with vLLM's dangers: real HTTP, the same flags, up in well under a second.

``python -m server.testing.fake_vllm <flags of server.engines.command>``, or :func:`create_fake` in-process.

It reproduces what vLLM 0.32 really does (numbers as in the project's list of dangers):

* D1: the base, asked while an adapter is at work, is answered by the adapter in the last slot (CPU);
* D3: an adapter that fell out of the CPU cache (``--max-cpu-loras``) is silently read again from its folder;
* D4: … and if that folder is gone, the whole engine dies;
* D7: the prefix cache is keyed by (name, path) and not by content, so old weights answer until the
  salt changes;
* D9: ``/invocations`` replaces ``model`` by the SageMaker header, and by nothing when there is none;
* D10: ``model`` missing, null or empty is answered by the base, 200.

Faults on demand: ``POST /__fault`` with any field of :class:`Faults`.
"""

import argparse
import asyncio
import base64
import json
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from server.testing import fake_chat, fake_completion, fake_model, fake_tools
from server.testing.fake_engine import CoreDead, FakeEngine, FakeOptions, Faults, RankTooHigh


class FakeServer:
    """The HTTP face. ``die`` ends the process (or whatever stands for it in a test)."""

    def __init__(self, engine: FakeEngine, die: Callable[[], None]) -> None:
        self.engine = engine
        self.seen: list[tuple[str, dict[str, Any]]] = []
        """(path, body) of every generation and probe, in order."""
        self._die = die

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._shaken], client_max_size=64 << 20)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/version", self._version),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/tokenize", self._tokenize),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
                web.post("/invocations", self._invocations),
                web.post("/__fault", self._fault),
            ]
        )
        if self.engine.options.embeds:
            app.router.add_post("/v1/embeddings", self._embeddings)
        if self.engine.options.runtime_loading:
            app.router.add_post("/v1/load_lora_adapter", self._load)
            app.router.add_post("/v1/unload_lora_adapter", self._unload)
        return app

    @web.middleware
    async def _shaken(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.engine.faults.silent and request.path != "/__fault":
            await asyncio.Event().wait()
        try:
            return await handler(request)
        except CoreDead:
            if self.engine.faults.lingers:
                self.engine.faults = replace(
                    self.engine.faults, unusable_probe=True, unusable_tokens=True, refuse_load=500
                )
            else:
                self._die()
            return _error(500, "EngineCore encountered an issue.", "InternalServerError")

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        name = 'model_name="fake",engine="0"'
        return web.Response(
            text=f"vllm:num_requests_running{{{name}}} {self.engine.running}.0\n"
            f"vllm:num_requests_waiting{{{name}}} 0.0\n"
            f"vllm:generation_tokens_total{{{name}}} {self.engine.tokens}.0\n"
        )

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self.engine.faults.version})

    async def _models(self, _: web.Request) -> web.Response:
        options = self.engine.options
        cards: list[tuple[str, str, str | None]] = [(options.served_name, options.model, None)]
        cards += [(name, str(path), options.served_name) for name, path in self.engine.paths.items()]
        if (foreign := self.engine.faults.serves_too) is not None:
            cards.append((foreign, options.model, options.served_name))
        data = [
            {"id": name, "object": "model", "root": root, "parent": parent} for name, root, parent in cards
        ]
        return web.json_response({"object": "list", "data": data})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            return _error(400, "Both 'lora_name' and 'lora_path' must be provided.", "InvalidUserInput")
        if name in self.engine.paths and not body.get("load_inplace"):
            return _error(400, f"The lora adapter '{name}' has already been loaded.", "InvalidUserInput")
        if status := self.engine.faults.refuse_load:
            return _error(status, "Call to add_lora failed: unsupported adapter", "InternalServerError")
        try:
            self.engine.load(name, Path(path))
        except RankTooHigh as error:
            return _error(400, str(error), "BadRequestError")
        except FileNotFoundError:
            return _error(404, f"Loading lora {name} failed: No adapter found for <path>", "NotFoundError")
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await request.json()).get("lora_name")
        if name not in self.engine.paths:
            return _error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        self.engine.unload(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        if (missing := self._unknown(body.get("model"))) is not None:
            return missing
        if self.engine.faults.unusable_tokens:
            return _error(500, "out of memory", "InternalServerError")
        ids = list(
            fake_model.toy_token_ids(
                body["messages"], add_generation_prompt=body.get("add_generation_prompt", True)
            )
        )
        if self.engine.faults.other_tokens:
            ids.insert(0, 0)
        return web.json_response(
            {"count": len(ids), "max_model_len": 4096, "tokens": ids, "token_strs": None}
        )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.seen.append((request.path, body))
        if (missing := self._unknown(body.get("model"))) is not None:
            return missing
        if self.engine.faults.unusable_probe:
            return _error(500, "Out of range float values are not JSON compliant", "InternalServerError")
        name = self._name(body.get("model"))
        prompts = fake_completion.prompts_of(body)
        if any(self.engine.faults.deadly_token in prompt for prompt in prompts):
            raise CoreDead
        with self.engine.step(name):
            await asyncio.sleep(self._delay(name))
            weights = [self.engine.answering(name, prompt, body.get("cache_salt")) for prompt in prompts]
        found = fake_completion.compose(body, prompts, model=self._claim(name), weights=weights)
        if body.get("stream"):
            return await self._stream(request, fake_completion.frames(found))
        return web.json_response(fake_completion.whole(found))

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.seen.append((request.path, body))
        if (missing := self._unknown(body.get("model"))) is not None:
            return missing
        name = self._name(body.get("model"))
        prompts = fake_completion.prompts_of({"prompt": body["input"]})
        data = []
        for index, prompt in enumerate(prompts):
            weights = self.engine.answering(name, prompt, body.get("cache_salt"))
            row = [value for _, value in fake_model.fake_logprobs(weights, prompt)][
                : body.get("dimensions", 8)
            ]
            numbers = base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
            encoded = numbers if body.get("encoding_format") == "base64" else row
            data.append({"index": index, "object": "embedding", "embedding": encoded})
        count = sum(len(prompt) for prompt in prompts)
        usage = {"prompt_tokens": count, "total_tokens": count, "completion_tokens": 0}
        return web.json_response(
            {"id": "embd-fake", "object": "list", "model": self._claim(name), "data": data, "usage": usage}
        )

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, await request.json())

    async def _invocations(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        body["model"] = request.headers.get(
            "X-Amzn-SageMaker-Adapter-Identifier"
        )  # D9: also when it is absent
        return await self._answer(request, body)

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        self.seen.append((request.path, body))
        if (missing := self._unknown(body.get("model"))) is not None:
            return missing
        if fake_tools.has_media(body) and not self.engine.options.multimodal:
            return _error(400, f"{body['model']} is not a multimodal model", "BadRequestError")
        name = self._name(body.get("model"))
        prompt = fake_model.toy_token_ids(body.get("messages", ()), add_generation_prompt=True)
        with self.engine.step(name):
            weights = self.engine.answering(name, prompt, body.get("cache_salt"))
            await asyncio.sleep(self._delay(name))
        chat = fake_chat.compose(body, model=self._claim(name), weights=weights, prompt_tokens=len(prompt))
        if not body.get("stream"):
            return web.json_response(fake_chat.whole(chat, drop_finish=self.engine.faults.drop_finish_reason))
        faults = self.engine.faults
        frames = fake_chat.frames(
            chat, drop_finish=faults.drop_finish_reason, end_in_error=faults.error_frame
        )
        return await self._stream(request, frames)

    async def _stream(self, request: web.Request, frames: Iterable[bytes]) -> web.StreamResponse:
        faults = self.engine.faults
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for number, frame in enumerate(frames):
            if faults.die_mid_stream and number == 2 and request.transport is not None:
                request.transport.abort()
                return response
            await response.write(b"data: " + frame + b"\n\n")
        await response.write_eof()
        return response

    async def _fault(self, request: web.Request) -> web.Response:
        """Set some faults and keep the others; answers with all of them."""
        self.engine.faults = replace(self.engine.faults, **await request.json())
        return web.json_response(asdict(self.engine.faults))

    def _unknown(self, model: object) -> web.Response | None:
        if self.engine.is_base(model) or model in self.engine.paths:
            return None
        served = self.engine.options.served_name
        text = f"The model `{model}` does not exist. Valid aliases: {served}."
        return _error(404, text, "NotFoundError")

    def _name(self, model: object) -> str | None:
        return None if self.engine.is_base(model) else str(model)

    def _delay(self, name: str | None) -> float:
        faults = self.engine.faults
        return faults.slow_adapters if name is not None and faults.slow_adapters else faults.slow_first_byte

    def _claim(self, name: str | None) -> str:
        return self.engine.faults.model_lie or name or self.engine.options.served_name


def create_fake(
    options: FakeOptions | None = None, faults: Faults | None = None, die: Callable[[], None] = lambda: None
) -> FakeServer:
    return FakeServer(FakeEngine(options or FakeOptions(), faults or Faults()), die)


def parser() -> argparse.ArgumentParser:
    """The flags that ``server.engines.command`` writes; an unknown one is refused, as vLLM does."""
    flags = argparse.ArgumentParser(prog="fake-vllm", allow_abbrev=False)
    for required in ("--model", "--served-model-name", "--dtype"):
        flags.add_argument(required, required=True)
    flags.add_argument("--max-logprobs", type=int, required=True)
    for number in ("--port", "--max-loras", "--max-lora-rank", "--max-cpu-loras"):
        flags.add_argument(number, type=int)
    flags.add_argument("--host")
    flags.add_argument("--uds")
    flags.add_argument("--enable-lora", action="store_true")
    flags.add_argument("--structured-outputs-config", type=json.loads, required=True)
    flags.add_argument("--max-model-len", type=int)
    flags.add_argument("--revision")
    flags.add_argument("--fingerprint-mode", choices=("full", "hash", "custom", "none"))
    flags.add_argument("--gpu-memory-utilization", type=float)
    flags.add_argument("--tensor-parallel-size", type=int)
    flags.add_argument("--enforce-eager", action="store_true")
    flags.add_argument("--disable-uvicorn-access-log", action="store_true")
    flags.add_argument("--enable-auto-tool-choice", action="store_true")
    flags.add_argument("--tool-call-parser")
    flags.add_argument("--fake-faults", type=json.loads, default={}, help="JSON object: fields of Faults")
    return flags


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM."""
    given = parser().parse_args(arguments)
    lora = bool(given.enable_lora)
    options = FakeOptions(
        served_name=given.served_model_name,
        model=given.model,
        max_cpu_loras=given.max_cpu_loras or 1,
        max_loras=given.max_loras or 1,
        max_lora_rank=given.max_lora_rank or 512,
        runtime_loading=lora,
        merged=not lora and (Path(given.model) / "adapter_model.safetensors").is_file(),
    )
    fake = create_fake(options, Faults(**given.fake_faults), die=lambda: os._exit(1))
    web.run_app(
        fake.app(),
        host=given.host,
        port=given.port,
        sock=_bound(given.uds),
        print=None,
        access_log=None,
        shutdown_timeout=0.2,
    )


def _bound(path: str | None) -> socket.socket | None:
    """As vLLM does it: a file that is there already ends the start."""
    if path is None:
        return None
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(path)
    return bound


def _error(status: int, message: str, kind: str) -> web.Response:
    body = {"error": {"message": message, "type": kind, "param": None, "code": status}}
    return web.json_response(body, status=status)


if __name__ == "__main__":
    main(sys.argv[1:])
