"""The server under test and what is known of it: adapters with known behaviour, and their references."""

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from server.mixup import lora, texts
from server.mixup.errors import NothingToTest, ReferenceRefused
from server.mixup.finding import Tally
from server.mixup.judging import BASE, References
from server.mixup.loading import Loader
from server.mixup.trace import Trace
from server.mixup.wire import COMPLETIONS, Ask, Reply, Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How hard it is looked for; the same plan and seed ask the same questions."""

    seed: int = 0
    requests: int = 2000
    seconds: float | None = None
    slots: int = 4
    """Adapters that the server works on at a time (vLLM's --max-loras)."""
    pool: int = 8
    """Different adapters; more than the server keeps in memory, so that some are evicted."""
    prompts: int = 6
    together: int = 12
    """Requests in flight."""
    long_tokens: int = 160
    rounds: int = 8
    """Of long answers that loads happen under."""
    starving: float = 8.0
    """Seconds for which all slots are kept busy beside a cold adapter."""
    tenant_salts: Literal["none", "each", "same"] = "none"
    """What stands between server and tenants says as `cache_salt`: nothing, one for each, or one for all."""
    denies_cache: bool = False
    """What stands in between says 0 as `cached_tokens`, whatever the server says (a control)."""
    update: Literal["reuse", "fresh"] = "reuse"
    """How new weights of an adapter are brought: under its old name and path, or under a new name."""
    only: frozenset[str] = frozenset()
    destructive: bool = False
    head_start: float = 0.3
    """Seconds of decoding before something is done to a long answer."""

    def wants(self, danger: str) -> bool:
        return not self.only or danger in self.only


@dataclass(frozen=True, slots=True)
class Voice:
    """Whose adapter is called by one model name for all, as a gateway does it: the key decides."""

    model: str
    key: str
    path: str = COMPLETIONS
    whole: bool = False
    """Its answers must not be cut short: a policy asks for a complete document."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An adapter that the server was asked to load, and what it said."""

    name: str
    status: int
    text: str

    @property
    def taken(self) -> bool:
        return self.status == 200


@dataclass
class Ground:
    wire: Wire
    loader: Loader
    plan: Plan
    folder: Path
    """Where adapters are written, and the server can read them."""
    shapes: lora.Shapes | None = None
    """Of the base; None: only the given adapters can be asked, and nothing is written."""
    base: str | None = None
    """The name that the server answers to with the bare base, if it has one."""
    given: tuple[str, ...] = ()
    """Adapters that the server has already, by the name of their model."""
    restart: Callable[[], Awaitable[None]] | None = None
    """Only for servers that the suite has started itself."""
    voices: Mapping[str, Voice] = field(default_factory=dict)
    """Names that are asked for with a key of their own."""
    twins: tuple[str, str] | None = None
    """Two names for the same weights that belong to different tenants."""
    versions: set[str] = field(default_factory=set)
    """What an answer may say that it comes from, of a server whose names others can move; empty: unasked."""
    references: References = field(default_factory=References)
    live: dict[str, str] = field(default_factory=dict)
    """Names that the server knows -> weights."""
    _named: int = 0

    def __post_init__(self) -> None:
        self.prompts = texts.prompts(self.plan.seed, self.plan.prompts)
        self.long_prompt = texts.prompts(self.plan.seed + 1, 1)[0]
        self.drawn = random.Random(f"mixup/{self.plan.seed}")  # noqa: S311 (it must repeat)
        self.churned = random.Random(f"churn/{self.plan.seed}")  # noqa: S311

    @property
    def writes(self) -> bool:
        """Whether adapters can be made and loaded."""
        return self.shapes is not None and self.loader.possible

    def tally(self, danger: str) -> Tally:
        return Tally(danger, self.references)

    def weights(self) -> list[str]:
        """Those that a name stands for now."""
        known = set(self.live.values())
        return [weights for weights in self.references.weights() if weights in known]

    def folder_of(self, weights: str) -> Path:
        return self.folder / "weights" / weights

    def shaped(self) -> lora.Shapes:
        if self.shapes is None:
            raise NothingToTest("adapters can only be made for a base whose folder is known")
        return self.shapes

    def fresh_name(self) -> str:
        self._named += 1
        return f"mixup-{self.plan.seed}-{self._named}"

    async def load(self, weights: str, *, name: str | None = None, folder: Path | None = None) -> str:
        """A name for the weights, new unless given. Raises ReferenceRefused when the server refuses."""
        offer = await self.offer(weights, name=name, folder=folder)
        if not offer.taken:
            raise ReferenceRefused(
                f"the server refused to load an adapter: {offer.status} {offer.text[:200]}"
            )
        return offer.name

    async def offer(self, weights: str, *, name: str | None = None, folder: Path | None = None) -> Offer:
        """The same where a refusal is an answer, too."""
        name = name or self.fresh_name()
        status, text = await self.loader.load(name, folder or self.folder_of(weights))
        offer = Offer(name, status, text)
        if offer.taken:
            self.live[name] = weights
        return offer

    async def unload(self, name: str) -> None:
        self.live.pop(name, None)
        await self.loader.unload(name)

    def name_of(self, weights: str) -> str:
        return next(name for name, known in self.live.items() if known == weights)

    def long(self) -> dict[str, object]:
        """Of an answer that things are done to while it is decoded: it must not end by itself."""
        return {"extra": {"ignore_eos": True} if self.loader.possible else {}}

    async def ask(self, name: str | None, prompt: str, **options: object) -> Reply:
        voice = self.voices.get(name or "")
        if voice is not None:
            options = {"key": voice.key, "path": voice.path} | options
            if voice.whole:
                options["max_tokens"] = None
        model = voice.model if voice else name and self.loader.model(name, self.base)
        reply = await self.wire.ask(Ask(model=model, prompt=prompt, **options))  # type: ignore[arg-type]
        if self.plan.denies_cache and reply.answered:
            reply = replace(reply, cached_tokens=0)
        moved = bool(self.versions) and reply.answered and reply.version not in self.versions
        return replace(reply, moved=True) if moved else reply

    async def call(self, name: str, path: str, body: dict[str, object]) -> tuple[int, str]:
        """POST, for the adapter of this name."""
        voice = self.voices.get(name)
        body = {"model": voice.model if voice else self.loader.model(name, self.base)} | body
        return await self.wire.call("POST", path, body, key=voice.key if voice else None)

    async def prepare(self) -> None:
        """Make or take the adapters, and record what each answers while nothing else is asked.

        Raises NothingToTest, ReferenceRefused.
        """
        if self.given:
            self.live = {name: name for name in self.given}
        elif self.writes:
            for at in range(self.plan.pool):
                name = f"w{at}"
                lora.write(self.folder_of(name), self.shaped(), seed=1000 * self.plan.seed + at)
                await self.load(name)
        else:
            raise NothingToTest("no adapters: give some, or a base and a way to load what is made for it")
        for name, weights in list(self.live.items()):
            await self.record(name, weights)
        if self.base is not None:
            await self.record(self.base, BASE)

    async def again(self) -> None:
        """After a restart: the same adapters under new names; references stay."""
        self.live = {name: name for name in self.given}
        if not self.given:
            for at in range(self.plan.pool):
                await self.load(f"w{at}")

    async def record(self, name: str, weights: str) -> None:
        for at, prompt in enumerate(self.prompts):
            first = await self._quiet(name, prompt, 16)
            again = await self._quiet(name, prompt, 16) if at == 0 else None
            self.references.add(weights, prompt, first, again)

    async def long_ones(self, count: int) -> list[str]:
        """The weights of which a long answer is known, recorded now where it is not."""
        chosen = self.weights()[:count]
        for weights in chosen:
            await self.record_long(self.name_of(weights), weights)
        return chosen

    async def record_long(self, name: str, weights: str) -> None:
        if not self.references.knows(weights, self.long_prompt):
            trace = await self._quiet(name, self.long_prompt, self.plan.long_tokens, **self.long())
            self.references.add(weights, self.long_prompt, trace)

    async def _quiet(self, name: str, prompt: str, length: int, **options: object) -> Trace:
        reply = await self.ask(name, prompt, max_tokens=length, **options)
        if not reply.answered:
            raise ReferenceRefused(
                f"no quiet answer to compare with: {reply.status} {reply.text[:200] or 'cut short'}"
            )
        return reply.traces[0]
