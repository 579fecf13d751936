"""Which weights answer, in the fake: the part of vLLM that can go wrong, without any HTTP."""

import json
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from registry.digests import Digest
from server.testing import fake_model


@dataclass(frozen=True, slots=True)
class Faults:
    version: str = "0.32.0"
    model_lie: str | None = None
    """Every answer claims to come from this model."""
    drop_finish_reason: bool = False
    die_mid_stream: bool = False
    """The connection breaks after the first piece."""
    error_frame: bool = False
    """Streams end with an error frame and then ``[DONE]``, as vLLM's do when its core dies."""
    zero_effect_load: bool = False
    """The next loads succeed and change nothing: the base answers under their name."""
    wrong_effect_load: str | None = None
    """The next loads take the weights from this folder instead."""
    refuse_load: int = 0
    """Loads answer with this status: vLLM says 500 of an adapter that it cannot use and of a full disk."""
    deadly: str | None = None
    """A load of these weights ends the engine."""
    lingers: bool = False
    """… which says 500 to everything until somebody kills it."""
    deadly_token: int | None = None
    """A prompt with this token ends the engine."""
    other_tokens: bool = False
    """The tokenizer or the template is not the one of training."""
    slow_first_byte: float = 0.0
    """Seconds before any answer of a generation."""
    slow_adapters: float = 0.0
    """The same for adapters only: the base is then asked while one of them is at work."""
    base_is: str | None = None
    """The bare base answers as if it had these weights: a base that changed."""
    adapters_are: str | None = None
    """Every adapter answers as if it had these weights: a boot that has spoilt them."""
    unusable_tokens: bool = False
    """``/tokenize`` answers 500."""
    unusable_probe: bool = False
    """Probes answer 500, as for log-probabilities that are not numbers."""
    serves_too: str | None = None
    """Lists this name as well, which nobody gave it."""
    silent: bool = False
    """Accepts connections and answers nothing: a hung engine."""


@dataclass(frozen=True, slots=True)
class FakeOptions:
    served_name: str = "tenon-base"
    model: str = "/base"
    max_cpu_loras: int = 32
    max_loras: int = 8
    max_lora_rank: int = 512
    merged: bool = False
    """The folder of the model holds an adapter's files: they are part of the weights."""
    mixes_base: bool = True
    """D1, as on a CPU: a base request beside an adapter's is answered by the adapter in the last slot."""
    runtime_loading: bool = True
    embeds: bool = False
    """The base is an embedding model: vLLM then has ``/v1/embeddings``, and no other model has it."""
    multimodal: bool = False


class RankTooHigh(Exception):
    """As vLLM says it of an adapter that its slots do not hold."""


class CoreDead(Exception):
    """vLLM's engine core does not survive this, as where the folder of an evicted adapter is gone (D4)."""


class FakeEngine:
    """Which weights answer: the part of vLLM that can go wrong."""

    def __init__(self, options: FakeOptions, faults: Faults) -> None:
        self.options = options
        self.faults = faults
        self.paths: dict[str, Path] = {}
        self.reads: list[str] = []
        """Names read from disk, in order: the first read is the load, any later one is D3."""
        self._cache: OrderedDict[str, Digest | None] = OrderedDict()
        self._prefixes: dict[tuple[object, ...], Digest | None] = {}
        self._slots: list[str | None] = [None] * options.max_loras
        self._under_way: Counter[str | None] = Counter()
        """Requests by adapter; None is the base."""
        self.tokens = 0
        self._own = fake_model.weights_of(Path(options.model)) if options.merged else None

    @property
    def running(self) -> int:
        return self._under_way.total()

    @contextmanager
    def step(self, name: str | None) -> Iterator[None]:
        """Around everything between a request's start and its answer."""
        self._under_way[name] += 1
        if name is not None and name not in self._slots:
            free = [at for at, held in enumerate(self._slots) if held is None or not self._under_way[held]]
            if free:  # else it waits, and shares no step with the base
                self._slots[free[-1] if self._slots[free[-1]] is None else free[0]] = name
        try:
            yield
        finally:
            self._under_way[name] -= 1
            self.tokens += 1

    def load(self, name: str, path: Path) -> None:
        """Raises FileNotFoundError when there is no adapter at ``path``, RankTooHigh, CoreDead."""
        rank = json.loads((path / "adapter_config.json").read_bytes())["r"]
        if rank > self.options.max_lora_rank:
            raise RankTooHigh(f"LoRA rank {rank} is greater than max_lora_rank {self.options.max_lora_rank}.")
        if self.faults.deadly == fake_model.weights_of(path):
            raise CoreDead(name)
        self._read(name, path)
        self.paths[name] = path

    def unload(self, name: str) -> None:
        """Forgets the name only: weights and prefix cache stay, as in vLLM."""
        del self.paths[name]

    def is_base(self, model: object) -> bool:
        return model in (None, "", self.options.served_name)

    def answering(self, name: str | None, prompt: Sequence[int], salt: str | None) -> Digest | None:
        """The weights that answer; None is the base. Raises CoreDead."""
        if name is None:
            return self._base_or_last()
        key = (name, self.paths[name], salt, tuple(prompt))
        if key not in self._prefixes:
            self._prefixes[key] = self._weights(name)
        found = self._prefixes[key]
        return self._changed_base() if found is None else found

    def _base_or_last(self) -> Digest | None:
        others = any(count for name, count in self._under_way.items() if name is not None)
        last = self._slots[-1]
        if self.options.mixes_base and others and last is not None:
            return self._weights(last)  # D1: its row in the stack of slots is -1
        return self._changed_base()

    def _changed_base(self) -> Digest | None:
        return self._own if self.faults.base_is is None else Digest.of(self.faults.base_is.encode())

    def _weights(self, name: str) -> Digest | None:
        if self.faults.adapters_are is not None and not fake_model.is_null(self.paths[name]):
            return Digest.of(self.faults.adapters_are.encode())
        if name not in self._cache:
            try:
                self._read(name, self.paths[name])
            except FileNotFoundError:
                raise CoreDead(name) from None
        self._cache.move_to_end(name)
        return self._cache[name]

    def _read(self, name: str, path: Path) -> None:
        source = Path(self.faults.wrong_effect_load) if self.faults.wrong_effect_load else path
        weights = None if fake_model.is_null(source) else fake_model.weights_of(source)
        self.reads.append(name)
        self._cache[name] = None if self.faults.zero_effect_load else weights
        self._cache.move_to_end(name)
        while len(self._cache) > self.options.max_cpu_loras:
            self._cache.popitem(last=False)
