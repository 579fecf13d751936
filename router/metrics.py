"""What one router tells Prometheus: per tenant, adapter and engine, in a bounded number of series.

Names of tenants appear only when asked for: whoever can read ``/metrics`` would learn who else is served.
Engines have histograms because there are few; adapters have sums and counts because there may be thousands.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from router import series
from router.moments import Moments
from router.records.record import Trace
from router.series import Histogram, Kind, Summary, labels_of, sample

CONTENT_TYPE = series.CONTENT_TYPE
MOST_NAMES = 1000
"""(tenant, model, adapter) sets with series of their own; further ones share ``other``."""
MOST_ENGINES = 256
"""The same for engines, with 65 series each."""
OTHER = "other"
_Key: TypeAlias = tuple[str | None, str | None, str | None]
_NOBODY: _Key = (None, None, None)
"""Requests of nobody that is known; of everybody, where tenants are not named."""
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_FIRST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1)
_ADDED = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1)
_QUEUED = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)


class _Named:
    """What is counted for one tenant's model."""

    __slots__ = ("codes", "completion", "first", "labels", "prompt", "seconds")

    def __init__(self, labels: str) -> None:
        self.labels = labels
        self.codes: dict[str, int] = {}
        self.prompt = self.completion = 0
        self.seconds, self.first = Summary(), Summary()


class _Engine:
    """What is measured at one engine."""

    __slots__ = ("between", "first", "labels", "retries", "upstream")

    def __init__(self, labels: str) -> None:
        self.labels = labels
        self.first, self.between, self.upstream = Histogram(_FIRST), Histogram(_BETWEEN), Histogram(_SECONDS)
        self.retries = 0


class _Watched(NamedTuple):
    """A metric whose values are read when they are scraped."""

    name: str
    kind: Kind
    meaning: str
    label: str
    read: Callable[[], Mapping[str, float]]


class Metrics:
    def __init__(self, *, name_tenants: bool) -> None:
        self._name_tenants = name_tenants
        self._named: dict[_Key, _Named] = {}
        self._engines: dict[str, _Engine] = {}
        self._seconds = {stream: Histogram(_SECONDS) for stream in (False, True)}
        self._added = {stream: Histogram(_ADDED) for stream in (False, True)}
        self._queued = Histogram(_QUEUED)
        self._watched: list[_Watched] = []

    def watch(self, name: str, meaning: str, read: Callable[[], float], *, kind: Kind = "gauge") -> None:
        """A value that is read when it is scraped."""
        self.each(name, meaning, "", lambda: {"": read()}, kind=kind)

    def each(
        self,
        name: str,
        meaning: str,
        label: str,
        read: Callable[[], Mapping[str, float]],
        *,
        kind: Kind = "gauge",
    ) -> None:
        """The same for several values, told apart by ``label``, whose number the caller bounds."""
        self._watched.append(_Watched(name, kind, meaning, label, read))

    def finished(self, trace: Trace, moments: Moments) -> None:
        key = (trace.tenant, trace.model, trace.adapter) if self._name_tenants else _NOBODY
        named = self._named.get(key) or self._name(key)
        code = trace.code or "ok"
        named.codes[code] = named.codes.get(code, 0) + 1
        if trace.prompt_tokens:
            named.prompt += trace.prompt_tokens
        if trace.completion_tokens:
            named.completion += trace.completion_tokens
        begun, read, asked, last = moments.begun, moments.read or moments.begun, moments.asked, moments.last
        ended, queued, stream = moments.ended, moments.queued, trace.stream
        whole = ended - begun
        named.seconds.observe(whole)
        self._seconds[stream].observe(whole)
        # As Moments.added, without its calls: this runs for every request.
        before = asked - read - queued if asked else ended - read
        self._added[stream].observe(before + ended - last if asked and last else before)
        if queued:
            self._queued.observe(queued)
        if trace.engine is None:
            return
        engine = self._engines.get(trace.engine) or self._engine(trace.engine)
        if moments.retries:
            engine.retries += moments.retries
        if not last:
            return
        engine.upstream.observe(last - asked)
        if stream:
            came = moments.first or last  # a policy may hold everything back until the end
            first = came - begun
            named.first.observe(first)
            engine.first.observe(first)
            tokens = trace.completion_tokens or moments.events
            if tokens > 1:
                engine.between.observe((last - came) / (tokens - 1))

    def render(self) -> bytes:
        named, engines = list(self._named.values()), list(self._engines.values())
        parts = [
            series.family(
                "tenon_requests_total", "counter", "Finished requests; code is 'ok' or the error's",
                (sample("tenon_requests_total", f'{one.labels},code="{code}"', count)
                 for one in named for code, count in one.codes.items()),
            ),
            series.family(
                "tenon_tokens_total", "counter", "Tokens as engines counted them",
                (sample("tenon_tokens_total", f'{one.labels},kind="{kind}"', count)
                 for one in named for kind, count in (("prompt", one.prompt), ("completion", one.completion))
                 if count),
            ),
            _all("tenon_model_seconds", "summary", "From headers to the last byte, by model",
                 [(one.labels, one.seconds) for one in named]),
            _all("tenon_model_first_token_seconds", "summary", "To a stream's first token, by model",
                 [(one.labels, one.first) for one in named if one.first.count]),
            _all("tenon_request_seconds", "histogram", "From headers to the last byte, record included",
                 [(f'stream="{str(stream).lower()}"', found) for stream, found in self._seconds.items()]),
            _all("tenon_added_seconds", "histogram", "Of that, what the router itself cost",
                 [(f'stream="{str(stream).lower()}"', found) for stream, found in self._added.items()]),
            _all("tenon_queue_seconds", "histogram", "Waits for a free place, of requests that had to wait",
                 [("", self._queued)]),
            _all("tenon_engine_first_token_seconds", "histogram", "To a stream's first token, by engine",
                 [(one.labels, one.first) for one in engines]),
            _all("tenon_engine_between_tokens_seconds", "histogram", "Mean gap of each stream's tokens",
                 [(one.labels, one.between) for one in engines]),
            _all("tenon_engine_seconds", "histogram", "From asking an engine to its last byte",
                 [(one.labels, one.upstream) for one in engines]),
            series.family(
                "tenon_engine_retries_total", "counter",
                "Engines that could not be reached, or died, before this one was asked",
                (sample("tenon_engine_retries_total", one.labels, one.retries) for one in engines),
            ),
            *map(_read, self._watched),
        ]  # fmt: skip
        return "".join(parts).encode()

    def names(self) -> set[str]:
        """Every metric there can be, as queries and alerts spell them."""
        text = Metrics(name_tenants=False).render().decode()
        kinds = [line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE")]
        found = {watched.name for watched in self._watched}
        for name, kind in kinds:
            parts = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
            found |= {name + part for part in parts.get(kind, ("",))}
        return found

    def _name(self, key: _Key) -> _Named:
        """The first request of a name, or one beyond the bound."""
        if len(self._named) >= MOST_NAMES and key != _NOBODY:
            key = (OTHER, OTHER, OTHER)
        if (known := self._named.get(key)) is None:
            shown = (part or "" for part in key)
            labels = labels_of(dict(zip(("tenant", "model", "adapter"), shown, strict=True)))
            known = self._named[key] = _Named(labels)
        return known

    def _engine(self, name: str) -> _Engine:
        known = name if len(self._engines) < MOST_ENGINES else OTHER
        if known not in self._engines:
            self._engines[known] = _Engine(labels_of({"engine": known}))
        return self._engines[known]


def _all(name: str, kind: Kind, meaning: str, found: list[tuple[str, Histogram | Summary]]) -> str:
    lines = (line for labels, one in found for line in one.samples(name, labels))
    return series.family(name, kind, meaning, lines)


def _read(watched: _Watched) -> str:
    lines = [
        sample(watched.name, labels_of({watched.label: key}) if watched.label else "", float(value))
        for key, value in watched.read().items()
    ]
    return series.family(watched.name, watched.kind, watched.meaning, lines)
