"""What the registry's log says happened on each boot of each engine: when it loaded what.

An agent attests a version right after loading it, and while others are in service it loads one at a time,
each load followed by a look at everybody (``server.engines.boot``). So the load of a version lies after the
first attestation of the one loaded before it, after its engine was announced, and after it was first wanted:
by a promotion that was being prepared, or by an alias. It lies before its own first attestation. A version
that was wanted and never attested may have been tried at any time from then on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from registry.digests import Digest
from registry.fingerprint import Attestation
from registry.log.entries import Entry
from registry.models import AliasState, EngineState
from registry.promotions import Preparation
from registry.signing.envelope import Envelope

NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Load:
    """Between these two moments, if at all."""

    version: Digest
    after: datetime
    before: datetime
    certain: bool
    """False where the log holds no attestation: it may never have been loaded."""


@dataclass(slots=True)
class BootStory:
    engine: str
    boot: str
    engine_version: str
    base: Digest
    announced: datetime
    ended: datetime = NEVER
    attested: dict[Digest, datetime] = field(default_factory=dict)
    """When each version was first seen, whatever was found."""

    def loads(self, wanted: dict[Digest, tuple[Digest | None, datetime]]) -> list[Load]:
        found: list[Load] = []
        last = self.announced
        for version, seen in sorted(self.attested.items(), key=lambda item: item[1]):
            _, since = wanted.get(version, (None, self.announced))
            if since > seen:  # the log does not say why it was loaded, or clocks are apart
                since = self.announced
            found.append(Load(version, min(max(last, since, self.announced), seen), seen, certain=True))
            last = seen
        for version, (base, since) in wanted.items():
            if version not in self.attested and base in (None, self.base) and since < self.ended:
                after = max(since, self.announced)
                found.append(Load(version, after, self.ended, certain=False))
        return found


@dataclass(frozen=True, slots=True)
class Story:
    boots: dict[tuple[str, str], BootStory]
    wanted: dict[Digest, tuple[Digest | None, datetime]]
    """Version -> (its base, when a preparation or an alias first named it)."""


def told(entries: Iterable[Entry]) -> Story:
    """From the whole log, in order; signatures inside entries were checked by whoever verified it."""
    boots: dict[tuple[str, str], BootStory] = {}
    current: dict[str, BootStory] = {}
    bases: dict[Digest, Digest] = {}
    wanted: dict[Digest, tuple[Digest | None, datetime]] = {}
    for entry in entries:
        at = datetime.fromisoformat(entry.at)
        if entry.kind == "engine.announced":
            state = EngineState.build(entry.body["engine"])
            before = current.get(state.engine)
            if before is not None and before.boot != state.boot:
                before.ended = min(before.ended, at)
            story = boots.setdefault(
                (state.engine, state.boot),
                BootStory(state.engine, state.boot, state.engine_version, state.base, at),
            )
            story.ended = NEVER if state.up else at
            current[state.engine] = story
        elif entry.kind == "engine.attested":
            finding = Attestation.parse(Envelope.build(entry.body["envelope"]).body())
            held = boots.get((finding.engine, finding.boot))
            if held is not None:
                seen = datetime.fromisoformat(finding.observed_at)
                held.attested[finding.version] = min(seen, held.attested.get(finding.version, NEVER))
        elif entry.kind == "version.pushed":
            bases[Digest(entry.subject.rpartition("@")[2])] = Digest(entry.body["manifest"]["base"])
        elif entry.kind == "promotion.prepared":
            version = Preparation.build(entry.body["preparation"]).version
            wanted.setdefault(version, (bases.get(version), at))
        elif entry.kind == "alias.moved":
            state_of = AliasState.build(entry.body["alias"])
            named = (state_of.version, *(each.version for each in state_of.canaries), *state_of.shadows)
            for version in named:
                wanted.setdefault(version, (bases.get(version), at))
    return Story(boots, wanted)
