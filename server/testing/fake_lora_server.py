"""A server of many adapters without a model, that mixes them up in exactly the ways it is told to.

Every next token follows from (weights, prompt, what was said so far), so it shows whose weights were used for
a token. Without a fault it does everything right: it is what the mix-up suite is tested on, from both sides.
"""

import asyncio
import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from aiohttp import web

from registry.tensors import read_header, read_tensor

_VOCABULARY: Final = 64
_TOP: Final = 5
_BASE: Final = "base"
_PREFIX: Final = 200
"""Characters of a prompt that the prefix cache keeps."""
_CACHED: Final = 128
_PREFILL: Final = 1e-5
"""Seconds for a character of a prompt that is not in the cache; a twentieth for one that is."""
_CALL: Final = 100
"""Tokens of a call by weights that like spaces."""
WIDTH: Final = 16
"""Of the layers that adapters have to fit."""


@dataclass(frozen=True, slots=True)
class Mixing:
    """What goes wrong; named as the dangers are numbered."""

    q1_mislabels: bool = False
    q1_ignores: bool = False
    d1_base_in_batch: bool = False
    d2_switches_on_load: bool = False
    d3_rereads: bool = False
    d4_dies_without_folder: bool = False
    d5_dies_of_names: bool = False
    d6_in_place: bool = False
    d6_seldom: bool = False
    """In place, and the first time too late for the answer that was under way."""
    d7_stale_prefix: bool = False
    d8_open: bool = False
    d9_sagemaker: bool = False
    d10_nameless: bool = False
    d11_dies_of_prompts: bool = False
    d12_takes_broken: bool = False
    d12_dies_of_broken: bool = False
    d13_starves: bool = False
    d14_joins_paths: bool = False
    d15_loose_calls: bool = False
    d16_takes_other: bool = False
    d16_dies_of_other: bool = False
    s1_shares: bool = False
    s1_hides: bool = False
    """Shares, and says that nothing came from the cache."""


@dataclass(eq=False)
class _Running:
    name: str
    weights: str


@dataclass
class FakeLoraServer:
    faults: Mixing = field(default_factory=Mixing)
    dialect: Literal["vllm", "sglang"] = "vllm"
    key: str = "fake-key"
    slots: int = 2
    in_memory: int = 3
    pace: float = 0.001
    """Seconds for a token."""
    resolver: Path | None = None
    dead: bool = False
    sick: int = 0
    """With what status everything but the list of models is answered, if not as it should be."""
    lives: int | None = None
    """So many answers more, and it ends."""
    cuts_streams: bool = False
    """Streams end without a word of why."""
    paths: dict[str, Path] = field(default_factory=dict)
    _memory: OrderedDict[str, str] = field(default_factory=OrderedDict)
    _cache: dict[tuple[str, str, str, str], str] = field(default_factory=dict)
    _seen: set[tuple[str, str, str]] = field(default_factory=set)
    _running: list[_Running] = field(default_factory=list)
    _poisoned: bool = False
    _replaced: int = 0
    _answers: int = 0

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded], client_max_size=8 << 20)
        version = "/v1" if self.dialect == "vllm" else ""
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
                web.post(f"{version}/load_lora_adapter", self._load),
                web.post(f"{version}/unload_lora_adapter", self._unload),
            ]
        )
        if self.faults.d9_sagemaker:
            app.router.add_post("/invocations", self._invocations)
        return app

    def revive(self) -> None:
        """A restart: names and memory are gone."""
        self.dead = self._poisoned = False
        self.paths.clear()
        self._memory.clear()
        self._cache.clear()

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.dead and request.transport is not None:
            request.transport.close()
        loading = request.path.endswith("lora_adapter")
        open_ = self.faults.d8_open and loading
        if not open_ and request.headers.get("Authorization") != f"Bearer {self.key}":
            return _error(401, "no key")
        if self.sick and request.path != "/v1/models":
            return _error(self.sick, "sick")
        answer: web.StreamResponse = await handler(request)
        if self.dead and request.transport is not None:
            request.transport.close()
        return answer

    async def _models(self, _: web.Request) -> web.Response:
        cards = [{"id": _BASE, "parent": None}, *({"id": name, "parent": _BASE} for name in self.paths)]
        return web.json_response({"data": cards})

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        if "lora_name" not in body:
            return _error(400, "no name")
        name, folder = str(body["lora_name"]), Path(body["lora_path"])
        if body.get("load_inplace"):
            if not (self.faults.d6_in_place or self.faults.d6_seldom):
                return _error(400, "never in place")
            self._replaced += 1
        elif name in self.paths:
            return _error(400, "loaded already")
        if not self.faults.d16_takes_other and _odd(folder):
            self.dead = self.faults.d16_dies_of_other
            return _error(400, "another structure")
        if not self.faults.d12_takes_broken and _broken(folder):
            self.dead = self.faults.d12_dies_of_broken
            return _error(400, "broken values")
        self._poisoned = self._poisoned or _broken(folder)
        weights = _weights(folder)
        if self.faults.d5_dies_of_names and any(each.name == name for each in self._running):
            self.dead = True
        self.paths[name] = folder
        self._remember(name, weights)
        in_place = body.get("load_inplace") and not (self.faults.d6_seldom and self._replaced == 1)
        for each in self._running:
            if self.faults.d2_switches_on_load or (in_place and each.name == name):
                each.weights = weights
        return web.Response()

    async def _unload(self, request: web.Request) -> web.Response:
        self.paths.pop(str((await request.json()).get("lora_name")), None)
        return web.Response()

    async def _invocations(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        body["model"] = request.headers.get("X-Amzn-SageMaker-Adapter-Identifier", _BASE)
        return await self._answer(request, body)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, await request.json())

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self._asked(body) not in self.paths:
            return _error(404, "unknown")
        if int(body["max_tokens"]) < _CALL:
            return _error(422, "cut short")
        arguments = "12" if self.faults.d15_loose_calls else '{"amount": 12, "to": "bank"}'
        call = {"function": {"name": "pay", "arguments": arguments}}
        message = {"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
        return web.json_response({"choices": [message]})

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if self.lives is not None:
            self.lives -= 1
            self.dead = self.lives < 0
        name = self._asked(body)
        if body.get("prompt_logprobs"):
            if not self.faults.d11_dies_of_prompts:
                return _error(400, "not here")
            self.dead = True
        if name != _BASE and name not in self.paths and not self._resolved(str(name)):
            return _error(404, "unknown")
        try:
            weights = self._weights_of(str(name))
        except FileNotFoundError:
            self.dead = self.faults.d4_dies_without_folder
            return _error(500, "gone")
        if self.faults.d13_starves:
            await self._slot(str(name))
        prompt, salt = str(body["prompt"]), str(body.get("cache_salt"))
        used, cached = self._through_cache(str(name), weights, prompt, salt)
        if len(prompt) >= _PREFIX:
            await asyncio.sleep(len(prompt) * _PREFILL / (20 if cached else 1))
        cached = 0 if self.faults.s1_hides else cached
        mine = _Running(str(name), used)
        self._running.append(mine)
        try:
            if body.get("stream"):
                return await self._stream(request, body, mine, prompt)
            steps = [step async for step in self._steps(mine, prompt, int(body["max_tokens"]))]
        finally:
            self._running.remove(mine)
        choices = [_choice(at, steps) for at in range(int(body.get("n", 1)))]
        usage = {"prompt_tokens_details": {"cached_tokens": cached}}
        return web.json_response({"model": name, "choices": choices, "usage": usage})

    def _asked(self, body: Mapping[str, Any]) -> str | None:
        model = body.get("model") or (_BASE if self.faults.d10_nameless else None)
        if model is None or self.dialect == "vllm":
            return model
        # SGLang: BASE:ADAPTER, or the base and `lora_path`; whatever else the model is called is the base's
        # name (sgl-project/sglang#11570).
        return str(model).partition(":")[2] or body.get("lora_path") or _BASE

    async def _stream(
        self, request: web.Request, body: dict[str, Any], mine: _Running, prompt: str
    ) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        length, choices = int(body["max_tokens"]), range(int(body.get("n", 1)))
        said = 0
        async for step in self._steps(mine, prompt, length):
            said += 1
            finish = "length" if said == length and not self.cuts_streams else None
            for at in choices:
                frame = json.dumps({"model": mine.name, "choices": [_choice(at, [step], finish)]})
                await answer.write(f"data: {frame}\n\n".encode())
        await answer.write(b"data: [DONE]\n\n")
        return answer

    async def _steps(
        self, mine: _Running, prompt: str, length: int
    ) -> AsyncIterator[tuple[str, dict[str, float]]]:
        said = ""
        for _ in range(length):
            await asyncio.sleep(self.pace)
            weights = "poison" if self._poisoned else mine.weights
            if weights == _BASE and self.faults.d1_base_in_batch:
                beside = [each.weights for each in self._running if each.weights != _BASE]
                weights = beside[-1] if beside else weights
            top = _next(weights, prompt, said)
            token = max(top, key=lambda name: top[name])
            said += token
            yield token, top

    def _weights_of(self, name: str) -> str:
        self._answers += 1
        if name == _BASE or self.faults.q1_ignores:
            return _BASE
        if self.faults.q1_mislabels and self._answers % 7 == 0 and len(self._running) > 1:
            return self._running[0].weights
        if name not in self.paths:  # resolved from a path
            return _weights(Path(name))
        if name in self._memory:
            self._memory.move_to_end(name)
            return self._memory[name]
        if self.faults.d3_rereads or self.faults.d4_dies_without_folder:
            self._remember(name, _weights(self.paths[name]))
        return self._memory[name]

    def _remember(self, name: str, weights: str) -> None:
        self._memory[name] = weights
        self._memory.move_to_end(name)
        if self.faults.d3_rereads or self.faults.d4_dies_without_folder:
            while len(self._memory) > self.in_memory:
                self._memory.popitem(last=False)

    def _resolved(self, name: str) -> bool:
        return self.faults.d14_joins_paths and Path(name).is_absolute() and Path(name).is_dir()

    def _through_cache(self, name: str, weights: str, prompt: str, salt: str) -> tuple[str, int]:
        """(whose weights the answer shows, how many tokens came from the cache)"""
        if len(prompt) < _PREFIX:
            return weights, 0
        salt = "" if self.faults.s1_shares or self.faults.s1_hides else salt
        cached = _CACHED if (name, salt, prompt) in self._seen else 0
        self._seen.add((name, salt, prompt))
        content = "" if self.faults.d7_stale_prefix else weights
        known = self._cache.setdefault((name, salt, prompt[:_PREFIX], content), weights)
        return (weights if known == weights else f"{known}+{weights}"), cached

    async def _slot(self, name: str) -> None:
        """Whoever holds a slot keeps it as long as it has requests, and the others wait."""
        while name not in (held := {each.name for each in self._running}) and len(held) >= self.slots:  # noqa: ASYNC110
            await asyncio.sleep(self.pace)


def _weights(folder: Path) -> str:
    return hashlib.blake2b((folder / "adapter_model.safetensors").read_bytes(), digest_size=8).hexdigest()


def _next(weights: str, prompt: str, said: str) -> dict[str, float]:
    draw = hashlib.blake2b(f"{weights}/{prompt}/{said}".encode(), digest_size=2 * _TOP).digest()
    return {f"t{draw[at] % _VOCABULARY} ": -math.log1p(draw[_TOP + at]) for at in range(_TOP)}


def _choice(
    at: int, steps: list[tuple[str, dict[str, float]]], finish: str | None = "length"
) -> dict[str, Any]:
    tokens = [token for token, _ in steps]
    return {
        "index": at,
        "text": "".join(tokens),
        "finish_reason": finish,
        "logprobs": {
            "tokens": tokens,
            "token_logprobs": [top[token] for token, top in steps],
            "top_logprobs": [top for _, top in steps],
        },
    }


def _odd(folder: Path) -> bool:
    """Layers or widths that the fakes' base does not have, or no effect."""
    path = folder / "adapter_model.safetensors"
    header = read_header(path)
    if any(".layers.9" in name or 0 in info.shape for name, info in header.items()):
        return True
    widths = {info.shape[1] for name, info in header.items() if name.endswith("lora_A.weight")}
    zero = all(not read_tensor(path, info).any() for name, info in header.items() if "lora_B" in name)
    return zero or min(widths) < WIDTH


def _broken(folder: Path) -> bool:
    path = folder / "adapter_model.safetensors"
    values = [read_tensor(path, info) for info in read_header(path).values()]
    return any(not np.isfinite(each).all() or float(np.abs(each).max()) > 1e6 for each in values)


def _error(status: int, words: str) -> web.Response:
    return web.json_response({"error": {"message": words}}, status=status)
