"""What must be true of every step, stated without vLLM: numbers, names, slots and their origin."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn, Protocol

from server.engines.plugin.reading import Reading
from server.engines.plugin.violations import GuardRefusal, GuardViolation, Kind, Violation


class Tally(Protocol):
    def add(self, field: str, amount: int = 1) -> None: ...


@dataclass(frozen=True, slots=True)
class Named:
    """What vLLM calls an adapter: the number decides the slot, the name is what was asked for."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Built:
    """What the kernel's indices were last made from."""

    tokens: Sequence[int]
    prompts: Sequence[int]
    layout: tuple[int | None, ...]


class Watch:
    """One per worker process, called by its one thread. A method that finds a fault reports and raises."""

    def __init__(
        self,
        *,
        isolate_base: bool,
        tally: Tally,
        report: Callable[[Violation], object],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``report`` must have made the violation durable when it returns."""
        self._isolate_base = isolate_base
        self._tally = tally
        self._report = report
        self._now = now
        self._requests: dict[str, Named | None] = {}
        self._names: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        self._readings: dict[int, Reading] = {}
        self._sums: dict[str, tuple[int, ...]] = {}
        self._layout: tuple[int | None, ...] | None = None
        self._live = False
        """Whether the step before had a request with an adapter."""
        self._running: Mapping[str, int] | None = None
        self._rows_seen = self._checked = False
        self._tripped = False
        self.step = 0

    @property
    def running(self) -> bool:
        """Between the start and the end of a step; what happens outside is warm-up or a load."""
        return self._running is not None

    def begin(
        self,
        new: Iterable[tuple[str, Named | None]],
        finished: Iterable[str],
        scheduled: Mapping[str, int],
    ) -> None:
        """A step as the scheduler ordered it, before the runner sees it."""
        if self._tripped:
            raise GuardViolation("the guard has stopped this engine")
        for request in finished:
            self._requests.pop(request, None)
        for request, named in new:
            if named is not None:
                self._introduce(named)
            self._requests[request] = named
        if not scheduled:
            return
        self.step += 1
        self._tally.add("steps")
        self._running, self._rows_seen, self._checked = scheduled, False, False

    def rows(self, requests: Sequence[str], ids: Sequence[int]) -> None:
        """The runner's own table, row by row, against what each request asked for."""
        if self._running is None:
            return
        known, missing = self._requests, _MISSING
        for request, number in zip(requests, ids, strict=False):
            named = known.get(request, missing)
            wanted = 0 if named is None else named.id
            if wanted != number:
                self.violate("row", f"a request's row carries adapter {number} and not {wanted}", named)
        if len(requests) != len(ids) or len(requests) != len(self._running):
            self.violate("row", f"{len(ids)} rows for {len(self._running)} scheduled requests")
        self._rows_seen = True
        self._tally.add("checked", len(ids))

    def check(
        self,
        batch: Iterable[Named],
        *,
        tokens: Sequence[int],
        prompts: Sequence[int],
        built: Built | None,
        layout: Sequence[int | None],
        registered: Callable[[int], object],
    ) -> None:
        """After the runner has set its adapters, before the model runs.

        ``built``: what the kernel's indices were made from. ``registered``: the :class:`Reading` that is
        attached to what vLLM has under a number now.
        """
        if self._running is None:
            return
        now = tuple(layout)
        if built is None:
            self.violate("metadata", "the kernel's indices were made unseen")
        if built.layout != now:
            self.violate("metadata", "the kernel's indices were made for another layout of the slots")
        if not (_same(built.tokens, tokens) and _same(built.prompts, prompts)):
            self.violate("metadata", "the kernel's indices were made for another batch")
        named = {}
        for entry in batch:
            self._introduce(entry)
            named[entry.id] = entry
        used = set(prompts)
        if self._isolate_base and 0 in used and len(used) > 1:
            self.violate("base", "a request without adapter shares a step with adapters", *named.values())
        for number in used:
            if number > 0:
                self._occupied(number, named, now, registered)
        self._count_reassignments(now)
        self._live = len(used) > 1 or 0 not in used
        self._checked = True

    def end(self, *, adapters: bool) -> None:
        """The step is computed. ``adapters``: whether the engine has slots (with merged weights, none)."""
        if self._running is None:
            return
        self._running = None
        if adapters and not (self._rows_seen and self._checked):
            self.violate("unwatched", "a step was computed without its checks")

    def abandon(self) -> None:
        """The step failed by itself."""
        self._running = None

    def admit(self, named: Named, *, inplace: bool) -> None:
        """Before vLLM looks whether it has the adapter. Outside a step a refusal is enough."""
        if inplace:
            self._turn_down("inplace", "weights may not change under a name", named)
        known = self._names.get(named.id, named.name), self._ids.get(named.name, named.id)
        if known != (named.name, named.id):
            self._turn_down("identity", "a number or name is used for a second adapter", named)

    def loaded(self, named: Named, reading: Reading) -> None:
        """Weights came from verified bytes."""
        self._introduce(named)
        self._tally.add("rereads" if named.id in self._readings else "loads")
        self._readings[named.id] = reading

    def activated(self, number: int, sums: tuple[int, ...]) -> None:
        """An adapter was put into a slot: whichever slot, the tensors must be what they were before."""
        self._tally.add("activations")
        name = self._names.get(number)
        if name is not None and number in self._readings and self._sums.setdefault(name, sums) != sums:
            self.violate("tensor", "the adapter differs from its first activation", Named(number, name))

    def audited(self, number: int, slot: int, place: int, found: int) -> None:
        """``found``: the sum of tensor number ``place`` of a slot, now."""
        sums = self._sums.get(self._names.get(number, ""))
        if sums is not None and sums[place] != found:
            self.violate("tensor", "a slot's tensor was written to", self._named(number), slot=slot)

    def turn_down(self, kind: Kind, what: str, named: Named) -> NoReturn:
        """A load that cannot be: a refusal outside a step, a violation inside."""
        self._turn_down(kind, what, named)

    def violate(self, kind: Kind, what: str, *named: Named | None, slot: int | None = None) -> NoReturn:
        self._tripped = True
        self._running = None
        self._report(
            Violation(
                kind=kind,
                what=what,
                at=self._now().isoformat(timespec="milliseconds"),
                step=self.step,
                names=tuple(sorted({entry.name for entry in named if entry is not None and entry.name})),
                slot=slot,
            )
        )
        self._tally.add("violations")
        raise GuardViolation(f"{kind}: {what}")

    def _introduce(self, named: Named) -> None:
        """Number and name belong together for as long as the process lives."""
        if self._names.get(named.id) == named.name and self._ids.get(named.name) == named.id:
            return
        if named.id in self._names or named.name in self._ids:
            other = self._named(named.id)
            self.violate("identity", "a number or name is used for a second adapter", named, other)
        self._names[named.id] = named.name
        self._ids[named.name] = named.id

    def _occupied(
        self,
        number: int,
        named: Mapping[int, Named],
        layout: tuple[int | None, ...],
        registered: Callable[[int], object],
    ) -> None:
        who = named.get(number)
        if who is None:
            self.violate("row", f"adapter {number} is used and no request of the step named it")
        if layout.count(number) != 1:
            self.violate("slot", f"the adapter is in {layout.count(number)} slots", who)
        reading = self._readings.get(number)
        if reading is None or registered(number) is not reading or reading.name != who.name:
            self.violate(
                "weights", "the adapter was not read from verified bytes", who, slot=layout.index(number)
            )

    def _count_reassignments(self, layout: tuple[int | None, ...]) -> None:
        if self._live and self._layout is not None and self._layout != layout:
            moved = sum(
                before is not None and after is not None and before != after
                for before, after in zip(self._layout, layout, strict=True)
            )
            self._tally.add("reassignments", moved)
        self._layout = layout

    def _turn_down(self, kind: Kind, what: str, named: Named) -> NoReturn:
        if self.running:
            self.violate(kind, what, named)
        self._tally.add("refusals")
        raise GuardRefusal(what)

    def _named(self, number: int) -> Named | None:
        return Named(number, self._names[number]) if number in self._names else None


_MISSING = Named(-1, "")
"""For a request that the scheduler never introduced: it matches no row."""


def _same(made: Sequence[int], asked: Sequence[int]) -> bool:
    return made is asked or tuple(made) == tuple(asked)
