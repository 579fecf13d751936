"""choose: metadata headers -> one rule, or a refusal. The router and the proof ask this very function.

A rule answers exactly the requests that carry its conditions and no other metadata that this model's rules
look at. So no header that a client sends is ever overlooked, an unknown value never falls back to the
default rule, and an answer is one look into a table, however many rules there are.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from registry.models import DeclaredHeader, Route, Routing

T = TypeVar("T")
Values: TypeAlias = tuple[str | None, ...]
"""One per deciding header, in order; None where it is absent."""


class Refusal(StrEnum):
    REPEATED = "repeated"
    """A header came more than once: proxies disagree about which one counts."""
    REQUIRED = "required"
    """A header that the tenant requires is absent."""
    UNKNOWN = "unknown"
    """A value that the tenant did not declare."""
    UNMATCHED = "unmatched"
    """A declared value that no matching rule of this model names."""
    MISSING = "missing"
    """Nothing was sent, and the model has no default rule."""
    AMBIGUOUS = "ambiguous"
    """Several rules match, and none of them names everything that was sent."""


class Outcome(NamedTuple, Generic[T]):  # made for every request, and three times as fast as a dataclass
    """Either a rule, or a refusal and the headers it is about."""

    rule: T | None
    refusal: Refusal | None = None
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules(Generic[T]):
    """All rules of one public model of one tenant, ready to be asked."""

    known: tuple[tuple[str, frozenset[str], bool], ...]
    """(name, declared values, required), sorted. A header that only a rule names has no declared values."""
    deciding: tuple[str, ...]
    """The headers that some rule of this model tests, sorted."""
    exact: Mapping[Values, tuple[T, ...]]
    conditions: tuple[frozenset[tuple[str, str]], ...]


def compiled(rules: Iterable[tuple[Mapping[str, str], T]], headers: Iterable[DeclaredHeader]) -> Rules[T]:
    """``rules``: (conditions, whatever is to be found by them); ``headers``: all that the tenant declared."""
    given = list(rules)
    deciding = tuple(sorted({name for when, _ in given for name in when}))
    known = {name: (frozenset[str](), False) for name in deciding}
    known |= {header.name: (frozenset(header.values), header.required) for header in headers}
    exact: dict[Values, list[T]] = defaultdict(list)
    for when, rule in given:
        exact[tuple(when.get(name) for name in deciding)].append(rule)
    return Rules(
        known=tuple((name, *known[name]) for name in sorted(known)),
        deciding=deciding,
        exact={values: tuple(found) for values, found in exact.items()},
        conditions=tuple(frozenset(when.items()) for when, _ in given),
    )


def derived(routes: Iterable[Route]) -> tuple[DeclaredHeader, ...]:
    """What rules declare by testing it: every header and value of their conditions, none required."""
    values: dict[str, set[str]] = defaultdict(set)
    for route in routes:
        for name, value in route.when.items():
            values[name].add(value)
    return tuple(DeclaredHeader(name=name, values=tuple(sorted(values[name]))) for name in sorted(values))


def declared_by(routing: Routing) -> tuple[DeclaredHeader, ...]:
    """What it declares; routings of before headers were declared declare what their rules test."""
    return routing.headers or derived(routing.routes)


def choose(rules: Rules[T], every: Callable[[str], Sequence[str]]) -> Outcome[T]:
    """``every``: all values of a header (lower-case name) as they were sent, none when it is absent."""
    sent: dict[str, str] = {}
    for name, declared, required in rules.known:
        values = every(name)
        if len(values) > 1:
            return Outcome(None, Refusal.REPEATED, (name,))
        if values:
            if values[0] not in declared:
                return Outcome(None, Refusal.UNKNOWN, (name,))
            sent[name] = values[0]
        elif required:
            return Outcome(None, Refusal.REQUIRED, (name,))
    found = rules.exact.get(tuple([sent.get(name) for name in rules.deciding]))
    if found is not None:
        return Outcome(found[0]) if len(found) == 1 else Outcome(None, Refusal.AMBIGUOUS)
    return _why_none(rules, {name: sent[name] for name in rules.deciding if name in sent})


def _why_none(rules: Rules[T], sent: Mapping[str, str]) -> Outcome[T]:
    """The reason, for a request that no rule fits exactly."""
    matching = [conditions for conditions in rules.conditions if conditions <= sent.items()]
    recognised = {name for conditions in matching for name, _ in conditions}
    if unmatched := tuple(name for name in sent if name not in recognised):
        return Outcome(None, Refusal.UNMATCHED, unmatched)
    if not sent:
        return Outcome(None, Refusal.MISSING, rules.deciding)
    return Outcome(None, Refusal.AMBIGUOUS)
