"""Which adapter may answer, worked out from the documented rules alone (docs/concepts/routing.md), slowly and
without a line of the router's or the registry's code: what the mix-up test believes in."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Key:
    tenant: str | None
    role: str
    id: str
    revoked: bool = False
    ends: float | None = None
    """Seconds on the model's clock."""


@dataclass
class Version:
    tenant: str
    adapter: str
    weights: str
    """How an answer of these weights signs."""
    revoked: bool = False


@dataclass
class Alias:
    stable: str
    canaries: list[tuple[str, int, bool]] = field(default_factory=list)
    """(version, buckets of 10,000, counted from the top)."""
    ends: float | None = None
    before: list[str] = field(default_factory=list)
    epoch: int = 1
    since: int = 1
    """The epoch in which the stable version became everybody's."""
    former: tuple[str, int, int, float] | None = None
    """(what everybody got before, the first and the last epoch in which they did, until when it answers)."""


@dataclass
class Engine:
    boot: str
    up: bool = True
    attested: dict[str, str] = field(default_factory=dict)
    """Version -> the boot in which it was attested."""


@dataclass(frozen=True)
class Rule:
    model: str
    adapter: str
    alias: str
    when: Mapping[str, str]
    policy_of: str
    """The tenant that owns the policy it names."""


@dataclass(frozen=True)
class Request:
    secret: str | None
    model: str
    headers: Mapping[str, str]
    user: str | None
    tenant_header: str | None = None


@dataclass(frozen=True)
class Outcome:
    code: str | None
    """None: an answer."""
    version: str | None = None
    canary: bool = False
    epoch: int = 0
    """In which the version was everybody's, or a canary's."""


@dataclass
class World:
    now: float = 0.0
    tenants: dict[str, bool] = field(default_factory=dict)
    """Name -> suspended."""
    keys: dict[str, Key] = field(default_factory=dict)
    """Secret -> key."""
    rules: dict[str, list[Rule]] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    aliases: dict[tuple[str, str, str], Alias] = field(default_factory=dict)
    engines: dict[str, Engine] = field(default_factory=dict)
    conversations: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    """(tenant, adapter, alias, conversation) -> the epoch of its newest answer; 0: a canary gave it."""

    def rule_of(self, request: Request) -> tuple[str, str] | None:
        """(adapter, alias) that the request is about now."""
        key = self.keys.get(request.secret or "")
        found = self._rule(key.tenant, request) if key is not None and key.tenant is not None else None
        return (found.adapter, found.alias) if isinstance(found, Rule) else None

    def outcome(self, request: Request) -> Outcome:
        key = self.keys.get(request.secret or "")
        refused = self._stranger(request, key)
        if refused is not None or key is None or key.tenant is None:
            return Outcome(refused)
        found = self._rule(key.tenant, request)
        if isinstance(found, str):
            return Outcome(found)
        began = self._began(key.tenant, found, request)
        if isinstance(began, str):
            return Outcome(began)
        if found.policy_of != key.tenant:
            return Outcome("route_unusable")
        return self._answered(key, found, request, began)

    def _began(self, tenant: str, rule: Rule, request: Request) -> int | str:
        """The epoch that its conversation is in: what the client says, else what it was answered last."""
        conversation = request.headers.get("x-conversation-id")
        if not conversation:
            return 0
        said = request.headers.get("x-tenon-epoch")
        if said is None:
            return self.conversations.get((tenant, rule.adapter, rule.alias, conversation), 0)
        return int(said) if said in [str(number) for number in range(100)] else "epoch_invalid"

    def _stranger(self, request: Request, key: Key | None) -> str | None:
        """Why nobody is asked for this caller, whatever is asked for."""
        if request.secret is None:
            return "missing_api_key"
        if key is None or key.revoked or self._over(key.ends):
            return "invalid_api_key"
        if key.tenant is not None and request.tenant_header not in (None, key.tenant):
            return "tenant_mismatch"
        if key.tenant is not None and self.tenants[key.tenant]:
            return "tenant_suspended"
        return "role_forbidden" if key.tenant is None or key.role == "trainer" else None

    def models(self, tenant: str) -> list[str]:
        return sorted({rule.model for rule in self.rules.get(tenant, [])})

    def _rule(self, tenant: str, request: Request) -> Rule | str:
        """The rule, or why there is none."""
        mine = self.rules.get(tenant, [])
        rules = [rule for rule in mine if rule.model == request.model]
        if not rules:
            return "model_not_found"
        for name, value in request.headers.items():
            declared = {rule.when[name] for rule in mine if name in rule.when}
            if declared and value not in declared:
                return "metadata_unmatched"
        looked_at = {name for rule in rules for name in rule.when}
        sent = {name: value for name, value in request.headers.items() if name in looked_at}
        exact = [rule for rule in rules if dict(rule.when) == sent]
        if exact:
            return exact[0] if len(exact) == 1 else "route_ambiguous"
        fitting = [rule for rule in rules if all(sent.get(n) == v for n, v in rule.when.items())]
        if any(all(name not in rule.when for rule in fitting) for name in sent):
            return "metadata_unmatched"
        return "route_ambiguous" if sent else "metadata_required"

    def _answered(self, key: Key, rule: Rule, request: Request, began: int) -> Outcome:
        assert key.tenant is not None
        name = (key.tenant, rule.adapter, rule.alias)
        alias = self.aliases.get(name)
        if alias is None:
            return Outcome("adapter_not_ready")
        if self._over(alias.ends):
            return Outcome("alias_expired")
        if alias.former is not None:
            before, since, last, until = alias.former
            if since <= began <= last and self.now < until and self._served(before, name):
                return Outcome(None, before, False, last)
        version = self._share(name, alias, self._unit(key, request))
        if not self._served(version, name) and version != alias.stable:
            version = alias.stable
        if not self._served(version, name):
            return Outcome("adapter_not_ready")
        return Outcome(None, version, version != alias.stable, alias.epoch)

    def _share(self, name: tuple[str, str, str], alias: Alias, unit: str) -> str:
        tenant, adapter, called = name
        text = f"tenon.assignment/v1\0{tenant}/{adapter}:{called}\0{unit}"
        bucket = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % 10_000
        for version, buckets, from_top in alias.canaries:
            if (bucket >= 10_000 - buckets) if from_top else (bucket < buckets):
                return version
        return alias.stable

    def _unit(self, key: Key, request: Request) -> str:
        if request.headers.get("x-conversation-id"):
            return f"conversation {request.headers['x-conversation-id']}"
        return f"user {request.user}" if request.user else f"key {key.id}"

    def _served(self, version: str, name: tuple[str, str, str]) -> bool:
        found = self.versions.get(version)
        if found is None or found.revoked or (found.tenant, found.adapter) != name[:2]:
            return False
        return any(
            engine.up and engine.attested.get(version) == engine.boot for engine in self.engines.values()
        )

    def _over(self, ends: float | None) -> bool:
        return ends is not None and ends <= self.now
