"""prove: what can any key reach with any headers? Exact, by splitting into cases, for all requests.

Requests differ, for one tenant and model, in the headers that the tenant's rules or declarations name; a
header is absent, has a declared value, has another value, or comes twice. Cases are split header by header,
and only where rules differ. A rule answers only requests that carry exactly its conditions
(:mod:`registry.routing.choice`), so each split hands every rule to one side: cases grow with the rules, not
with the combinations. What a case reaches is asked of :func:`choose` itself.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import overload

from registry.digests import Digest
from registry.models import AliasState, DeclaredHeader, Key, Route, Routing, VersionState
from registry.promotions import Protection, strongest, weaker
from registry.routing.choice import Outcome, Refusal, Rules, choose, compiled, declared_by, derived
from registry.routing.form import check_form
from registry.routing.proof import Case, Finding, Flaw, Proof

MAX_FINDINGS = 100
"""That are listed; the others are counted."""
OTHER = "?"
"""Stands for any value that was not declared. Made longer until it is none of the declared ones."""
_Choose = Callable[[Rules[Route], Callable[[str], Sequence[str]]], Outcome[Route]]


@dataclass(frozen=True)
class Known:
    """What the rules lead to. A tenant is shown its own part only, so everything else is foreign."""

    tenants: frozenset[str]
    keys: tuple[Key, ...] = ()
    policies: Mapping[Digest, str] = field(default_factory=dict)
    """Policy -> its tenant."""
    aliases: Mapping[tuple[str, str, str], AliasState] = field(default_factory=dict)
    """(tenant, adapter, alias) -> where it points."""
    versions: Mapping[Digest, VersionState] = field(default_factory=dict)
    protections: tuple[Protection, ...] = ()


def prove(routings: Iterable[Routing], known: Known, *, choose: _Choose = choose) -> Proof:
    """Raises RouteInvalid for rules that are not well formed or too many: those are not proved."""
    cases: list[Case] = []
    findings: list[Finding] = [*_keys(known)]
    total = 0
    for routing in routings:
        # A foreign route is to be found, not refused for its form; its conditions are judged like all others.
        as_own = [route.model_copy(update={"tenant": routing.tenant}) for route in routing.routes]
        check_form(routing.tenant, routing.headers, as_own)
        prover = _Prover(routing, known, choose)
        prover.run()
        cases += prover.cases
        findings += prover.findings
        total += sum(case.combinations for case in prover.cases)
    findings.sort(key=lambda finding: finding.severity == "warning")
    return Proof(
        tenants=len(known.tenants),
        keys=sum(1 for key in known.keys if key.tenant is not None and not key.revoked),
        combinations=total,
        cases=tuple(cases),
        findings=tuple(findings[:MAX_FINDINGS]),
        more=len(findings[MAX_FINDINGS:]),
    )


def _keys(known: Known) -> Iterator[Finding]:
    usable = [key for key in known.keys if key.tenant is not None and not key.revoked]
    shared = {secret for secret, count in Counter(key.secret_hash for key in usable).items() if count > 1}
    for key in usable:
        if key.tenant is None:
            continue
        why = "belongs to no known tenant" if key.tenant not in known.tenants else ""
        if key.secret_hash in shared:
            why = "has the same secret as another key"
        if why:
            yield Finding(
                flaw=Flaw.KEY_UNCLEAR, severity="error", tenant=key.tenant, why=f"the key {key.id} {why}"
            )


@dataclass
class _Prover:
    """One tenant."""

    routing: Routing
    known: Known
    choose: _Choose
    cases: list[Case] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tenant = self.routing.tenant
        self.headers = declared_by(self.routing)
        self.declared = {header.name: header for header in self.headers}
        self.explicit = self.headers != derived(self.routing.routes)
        """Headers that say nothing beyond the rules ask for nothing: holes are only worth a warning then."""
        mine = [each for each in self.known.protections if each.tenant == self.tenant]
        self.protections = {each.alias: each for each in mine}
        self.needed = strongest(self.tenant, "live", mine)
        self.models: dict[str, list[Route]] = defaultdict(list)
        for route in self.routing.routes:
            self.models[route.model].append(route)

    def run(self) -> None:
        tested = {(name, value) for route in self.routing.routes for name, value in route.when.items()}
        for header in self.headers:
            used = {value for name, value in tested if name == header.name}
            if not used:
                self._say(Flaw.UNUSED, f"{header.name} is declared, and no rule looks at it", warning=True)
                continue
            if idle := [value for value in header.values if value not in used]:
                others = f" (and {len(idle) - 1} other values)" if len(idle) > 1 else ""
                why = f"{header.name}: {idle[0]}{others} is declared, and no rule answers it"
                self._say(Flaw.UNANSWERED, why, headers=((header.name, idle[0]),))
        for model, routes in sorted(self.models.items()):
            self._prove_model(model, routes)
        for route in self.routing.routes:
            self._leads(route)

    def _prove_model(self, model: str, routes: list[Route]) -> None:
        asked = _Asked(model, routes, self.headers, self.choose)
        reached: set[str] = set()
        for sent, count in asked.refused():
            self._case(asked, sent, count, reached)
        for sent, count in asked.split():
            self._case(asked, sent, count, reached)
        for headers in asked.unanswered():
            what = _spelled(headers) if headers else "no metadata"
            why = f"{model} has no rule for {what}"
            self._say(Flaw.UNANSWERED, why, model=model, headers=headers.items(), warning=not self.explicit)
        rivals = self._rivals(asked)
        for route in routes:
            if route.name not in reached and route.name not in rivals:
                self._unreached(asked, route)

    def _rivals(self, asked: "_Asked") -> set[str]:
        """Names of rules that are never reached because another one has the same conditions.

        Pairs suffice: if each two rules that agree have a rule for both, any number that agree have one for
        all. Rules that do not name every required header are left out: they are shadowed anyway.
        """
        twins, said = set(), len(self.findings)
        whole = [route for route in asked.routes if all(name in route.when for name in asked.required)]
        for one, other in combinations(whole, 2):
            request = asked.complete(_both(one, other))
            if request is None or asked.ask(request).refusal is not Refusal.AMBIGUOUS:
                continue
            why = f"{one.name} and {other.name} can match the same request for {asked.model} equally well"
            names = (one.name, other.name)
            self._say(Flaw.AMBIGUOUS, why, model=asked.model, rules=names, headers=request.items())
            if one.when == other.when:
                twins |= set(names)
            if len(self.findings) - said > 10 * MAX_FINDINGS:  # refused, and said why often enough
                return {route.name for route in asked.routes}
        return twins

    def _case(self, asked: "_Asked", sent: Mapping[str, list[str]], count: int, reached: set[str]) -> None:
        outcome = asked.ask_raw(sent)
        rule = outcome.rule
        shown = tuple((name, value) for name, values in sorted(sent.items()) for value in values)
        self.cases.append(
            Case(
                tenant=self.tenant,
                model=asked.model,
                headers=shown,
                combinations=count,
                rule=rule.name if rule else None,
                adapter=rule.adapter if rule else None,
                alias=rule.alias if rule else None,
                policy=rule.policy if rule else None,
                refusal=outcome.refusal,
                about=outcome.headers,
            )
        )
        if rule is None:
            return
        reached.add(rule.name)
        if rule.tenant != self.tenant:
            why = f"{rule.name} leads to an adapter that is not {self.tenant}'s"
            self._say(Flaw.FOREIGN_ADAPTER, why, model=asked.model, rules=(rule.name,), headers=shown)
        if fault := asked.overlooked(rule, sent):
            why = f"{rule.name} answers a request for {asked.model} {fault}"
            self._say(Flaw.FALLS_THROUGH, why, model=asked.model, rules=(rule.name,), headers=shown)

    def _unreached(self, asked: "_Asked", route: Route) -> None:
        for name, value in route.when.items():
            header = self.declared.get(name)
            if header is None or value not in header.values:
                what = f"{name}: {value}" if header else f"the header {name}"
                why = f"{route.name} tests {what}, which is not declared"
                when = route.when.items()
                self._say(Flaw.UNDECLARED, why, model=asked.model, rules=(route.name,), headers=when)
                return
        lacking = [name for name in asked.required if name not in route.when]
        headers, by = asked.complete(route.when), dict[str, dict[str, str]]()
        for other in asked.routes:
            request = asked.complete(_both(route, other)) if other is not route else None
            answering = asked.ask(request).rule if request is not None else None
            if request is not None and answering is not None:
                by.setdefault(answering.name, request)
        why = f"no request reaches {route.name}"
        if lacking:
            why += f": every one carries {' and '.join(lacking)}, which it does not name"
        self._say(
            Flaw.SHADOWED,
            f"{why}; {next(iter(by))} answers" if by else f"{why}; they are refused",
            model=asked.model,
            rules=(route.name, *by),
            headers=next(iter(by.values()), headers or {}).items(),
        )

    def _leads(self, route: Route) -> None:
        """Where a rule leads, whatever reaches it."""
        say = partial(self._say, model=route.model, rules=(route.name,), headers=route.when.items())
        if self.known.policies.get(route.policy) != route.tenant or route.tenant != self.tenant:
            say(Flaw.FOREIGN_POLICY, f"{route.name} names no policy of {self.tenant}")
        if weaker(self.protections.get(route.alias, strongest(self.tenant, route.alias, ())), self.needed):
            say(Flaw.UNPROTECTED, f"{route.name} leads to {route.alias}, which moves with less consent")
        alias = self.known.aliases.get((route.tenant, route.adapter, route.alias))
        spelled = f"{route.adapter}:{route.alias}"
        if alias is None:
            why = f"{route.name} leads to {spelled}, which points nowhere yet"
            say(Flaw.NOT_PUSHED, why, warning=True)
            return
        for version in (alias.version, *(canary.version for canary in alias.canaries), *alias.shadows):
            state = self.known.versions.get(version)
            if state is None or (state.tenant, state.adapter) != (self.tenant, route.adapter):
                why = f"{route.name} leads through {spelled} to a version that is not of {route.adapter}"
                say(Flaw.FOREIGN_VERSION, why)
            elif state.revoked:
                why = f"{route.name} leads through {spelled} to a revoked version, which nobody serves"
                say(Flaw.REVOKED, why, warning=True)

    def _say(
        self,
        flaw: Flaw,
        why: str,
        *,
        model: str = "",
        rules: tuple[str, ...] = (),
        headers: Iterable[tuple[str, str]] | None = None,
        warning: bool = False,
    ) -> None:
        self.findings.append(
            Finding(
                flaw=flaw,
                severity="warning" if warning else "error",
                tenant=self.tenant,
                why=why,
                model=model,
                rules=rules,
                headers=tuple(sorted(headers)) if headers is not None else None,
            )
        )


class _Asked:
    """All requests for one model."""

    def __init__(
        self, model: str, routes: list[Route], headers: Sequence[DeclaredHeader], ask: _Choose
    ) -> None:
        self.model = model
        self.routes = routes
        self.rules = compiled(((route.when, route) for route in routes), headers)
        self._choose = ask
        self._declared = {name: sorted(values) for name, values, _ in self.rules.known}
        self._required = frozenset(name for name, _, required in self.rules.known if required)
        self.required = tuple(name for name in self.rules.deciding if name in self._required)
        self._free = [name for name in self._declared if name not in self.rules.deciding]
        """Declared, and of no interest to this model."""

    def ask_raw(self, sent: Mapping[str, Sequence[str]]) -> Outcome[Route]:
        return self._choose(self.rules, lambda name: sent.get(name, ()))

    def ask(self, sent: Mapping[str, str]) -> Outcome[Route]:
        return self.ask_raw({name: (value,) for name, value in sent.items()})

    @overload
    def complete(self, sent: Mapping[str, str]) -> dict[str, str]: ...
    @overload
    def complete(self, sent: Mapping[str, str] | None) -> dict[str, str] | None: ...
    def complete(self, sent: Mapping[str, str] | None) -> dict[str, str] | None:
        """``sent`` and, where a required header is absent, the first of its values."""
        if sent is None:
            return None
        rest = {name: self._declared[name][0] for name in self._required if name not in sent}
        return dict(sorted({**sent, **rest}.items()))

    def _sound(self, name: str) -> int:
        """How many ways there are to send (or not to send) a header that is not refused at once."""
        return len(self._declared[name]) + (name not in self._required)

    def refused(self) -> Iterator[tuple[dict[str, list[str]], int]]:
        """Requests that one header spoils: twice, with an undeclared value, or absent though required.

        Counted by the first such header: all before it are sound.
        """
        before = 1
        names = list(self._declared)
        for position, name in enumerate(names):
            values = self._declared[name]
            after = math.prod(len(self._declared[later]) + 3 for later in names[position + 1 :])
            rest = {other: [value] for other, value in self.complete({}).items() if other != name}
            other = OTHER
            while other in values:
                other += OTHER
            yield rest | {name: [other]}, before * after
            yield rest | {name: [values[0] if values else other] * 2}, before * after
            if name in self._required:
                yield rest, before * after
            before *= self._sound(name)

    def split(self) -> Iterator[tuple[dict[str, list[str]], int]]:
        """All other requests: one case a rule, and one for each set of values that leaves no rule."""
        free = math.prod(self._sound(name) for name in self._free)
        fixed = {name: [self._declared[name][0]] for name in self._free if name in self._required}
        for sent, count in self._below(0, self.routes):
            yield {**fixed, **{name: [value] for name, value in sent.items()}}, count * free

    def _below(self, depth: int, routes: Sequence[Route]) -> Iterator[tuple[dict[str, str], int]]:
        """Cases of the headers from ``depth`` on, of requests that only ``routes`` can still answer."""
        names = self.rules.deciding[depth:]
        if not names:
            yield {}, 1
            return
        if not routes:
            rest = {name: self._declared[name][0] for name in names if name in self._required}
            yield rest, math.prod(self._sound(name) for name in names)
            return
        name, values = names[0], self._declared[names[0]]
        named: dict[str | None, list[Route]] = defaultdict(list)
        for route in routes:
            named[route.when.get(name)].append(route)
        if name not in self._required:
            yield from self._below(depth + 1, named[None])
        for value in values:
            if value in named:
                for sent, count in self._below(depth + 1, named[value]):
                    yield {name: value} | sent, count
        if others := [value for value in values if value not in named]:
            for sent, count in self._below(depth + 1, ()):
                yield {name: others[0]} | sent, count * len(others)

    def unanswered(self) -> Iterator[dict[str, str]]:
        """Requests with every required header and nothing else that no rule answers, one a reason."""
        waiting: list[tuple[int, dict[str, str], list[Route]]] = [(0, {}, self.routes)]
        while waiting:
            depth, sent, routes = waiting.pop()
            if depth == len(self.rules.deciding) or not routes:
                if not routes:
                    yield self.complete(sent)
                continue
            name = self.rules.deciding[depth]
            options: list[str | None] = list(self._declared[name]) if name in self._required else [None]
            unnamed = False
            for option in options:
                left = [route for route in routes if route.when.get(name) == option]
                if left or not unnamed:
                    unnamed |= not left
                    waiting.append((depth + 1, sent | ({name: option} if option else {}), left))

    def overlooked(self, rule: Route, sent: Mapping[str, Sequence[str]]) -> str:
        """What of the request the rule has no regard for; empty when it names all that matters."""
        for name, values, required in self.rules.known:
            have = sent.get(name, ())
            if len(have) > 1:
                return f"that sends {name} more than once"
            if have and have[0] not in values:
                return f"with a value of {name} that is not declared"
            if required and not have:
                return f"without {name}, which is required"
        for name in self.rules.deciding:
            have = sent.get(name, ())
            if (have[0] if have else None) != rule.when.get(name):
                return f"without regard for {name}"
        return ""


def _both(one: Route, other: Route) -> dict[str, str] | None:
    """The smallest request that has the conditions of both; None if there is none."""
    if any(other.when.get(header, value) != value for header, value in one.when.items()):
        return None
    return one.when | other.when


def _spelled(headers: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in headers.items())
