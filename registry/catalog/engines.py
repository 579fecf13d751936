"""Engines announce themselves; signed attestations turn what they hold into slots."""

from registry.catalog import failures, versions
from registry.catalog.change import Change
from registry.catalog.errors import (
    AnnouncementInvalid,
    AttestationInvalid,
    EngineDown,
    EngineHeld,
    EngineNeeded,
    EngineNotFound,
    EngineReplaced,
)
from registry.catalog.isolation import slot_rules
from registry.catalog.projection import (
    ENGINE_ANNOUNCED,
    ENGINE_ATTESTED,
    ENGINE_WITHDREW,
    attestation_id,
    signed_payload,
)
from registry.digests import Digest
from registry.errors import BaseNotFound, VersionRevoked
from registry.fingerprint import Attestation
from registry.judgement import plausible
from registry.models import EngineState, Withdrawal
from registry.signing.envelope import Envelope, verify
from registry.signing.types import ANNOUNCEMENT, ATTESTATION, WITHDRAWAL
from registry.store.tables.versions import StoredVersion

_FIXED = tuple(field for field in EngineState.model_fields if field not in ("engine", "boot", "up"))
"""What a running process cannot change: another value means another process. Its address too: what was
attested at one must never be asked for at another."""


def announce_signed(change: Change, envelope: Envelope) -> None:
    """What an agent says of its engine. Raises what :func:`announce` raises, SignatureInvalid and, for an
    announcement that names another key than its own, AnnouncementInvalid."""
    state = EngineState.parse(signed_payload(change.rows, envelope, payload_type=ANNOUNCEMENT, role="engine"))
    if state.key is None:
        raise AnnouncementInvalid("it does not name the key that signed it")
    _by_its_key(change, envelope, state, payload_type=ANNOUNCEMENT)
    _announce(change, state, {"envelope": envelope.model_dump(mode="json")})


def announce(change: Change, state: EngineState) -> None:
    """The platform's own word, which needs no signature: for an engine that has a key, only that it is down.

    An unchanged announcement changes nothing; any other one voids the engine's slots. Raises BaseNotFound;
    AnnouncementInvalid; EngineHeld when another key has the name of an engine that is up; EngineReplaced for
    a boot that a later one has replaced (a process that was thought dead and is not must not take the
    engine's name back) or that claims to have become another engine.
    """
    if state.key is not None and state.up:
        raise AnnouncementInvalid("only its own key can say that this engine is up")
    _announce(change, state, {})


def _announce(change: Change, state: EngineState, said: dict[str, object]) -> None:
    if change.rows.bases.get(state.base) is None:
        raise BaseNotFound(f"there is no base {state.base}")
    known = change.rows.engines.get(state.engine)
    if known == state:
        return
    if known is not None and known.boot == state.boot:
        if changed := [field for field in _FIXED if getattr(known, field) != getattr(state, field)]:
            raise EngineReplaced(f"{state.engine} changed its {', '.join(changed)} without a new boot")
    elif change.rows.log.about(ENGINE_ANNOUNCED, _subject(state)):
        raise EngineReplaced(f"this boot of {state.engine} was replaced by a later one")
    elif known is not None and _holds(change, known) and known.key != state.key:
        raise EngineHeld(f"{state.engine} is up, and announced by another key")
    change.write(ENGINE_ANNOUNCED, _subject(state), {"engine": state.model_dump(mode="json")} | said)


def _holds(change: Change, known: EngineState) -> bool:
    """Whether its name stays with its key; a key that nobody trusts any more holds nothing."""
    return known.up and known.key is not None and known.key in change.rows.signers.all()


def _by_its_key(change: Change, envelope: Envelope, engine: EngineState, *, payload_type: str) -> None:
    """Raises SignatureInvalid unless the key that announced the engine's boot signed it."""
    if engine.key is None:  # announced before announcements were signed
        return
    own = {key: signer for key, signer in change.rows.signers.all().items() if key == engine.key}
    verify(envelope, payload_type=payload_type, trusted=own, role="engine")


def attest(change: Change, envelope: Envelope) -> Digest:
    """The attestation's digest. A failed finding is logged too, and takes the slot away.

    Raises SignatureInvalid, EngineNotFound, EngineReplaced, EngineDown, VersionNotFound, VersionRevoked,
    AttestationInvalid.
    """
    payload = signed_payload(change.rows, envelope, payload_type=ATTESTATION, role="engine")
    found = Attestation.parse(payload)
    engine = change.rows.engines.get(found.engine)
    if engine is None:
        raise EngineNotFound(f"no engine {found.engine} was announced")
    _check_up(engine, found.boot)
    _by_its_key(change, envelope, engine, payload_type=ATTESTATION)
    stored = versions.find(change.rows, found.version)
    if stored.revoked and found.passed:
        raise VersionRevoked(f"{found.version} was revoked")
    if faults := _faults(found, engine, stored):
        raise AttestationInvalid("; ".join(faults), faults=tuple(faults))
    digest = attestation_id(envelope)
    if not _is_known(change, found, digest):
        said = {"envelope": envelope.model_dump(mode="json")} | _ruled(change, found, stored)
        change.write(ENGINE_ATTESTED, digest if found.passed else failures.subject(found), said)
    return digest


def _check_up(engine: EngineState, boot: str) -> None:
    """Raises EngineReplaced, EngineDown."""
    if engine.boot != boot:
        raise EngineReplaced(f"this boot of {engine.engine} was replaced by a later one")
    if not engine.up:
        raise EngineDown(f"this boot of {engine.engine} counts as down")


def _is_known(change: Change, found: Attestation, digest: Digest) -> bool:
    """Whether exactly this was said before: saying it again does nothing, whatever came after it."""
    if change.rows.log.about(ENGINE_ATTESTED, digest, limit=1):
        return True
    return not found.passed and any(
        attestation_id(each) == digest for each in failures.known(change.rows, found)
    )


def _ruled(change: Change, found: Attestation, stored: StoredVersion) -> dict[str, object]:
    """What its tenant's isolation makes of the finding: that it is no slot, or ends slots elsewhere."""
    rules = slot_rules(change.rows, found.version, stored.name.tenant, found.base)
    engine = change.rows.engines.get(found.engine)
    if rules is None or engine is None or not found.passed:
        return {}
    homes = {home.engine: home for home in change.rows.engines.all() if home.up}
    holders = {
        slot.engine: homes[slot.engine]
        for slot in change.rows.engines.slots(found.version)
        if slot.engine in homes and homes[slot.engine].boot == slot.boot
    }
    if found.engine not in holders and not rules.admits(engine, holders.values()):
        return {"slot": False}
    ended = sorted(rules.ended({**holders, found.engine: engine}.values()))
    return {"ended": [[name, str(found.version)] for name in ended]} if ended else {}


def withdraw(change: Change, envelope: Envelope) -> None:
    """End slots of versions that others serve. What is not listed here any more is passed over.

    Within one transaction, so that of two engines that each count on the other only one can go. Raises
    SignatureInvalid; EngineNotFound; EngineReplaced; EngineDown; EngineNeeded when some version has no slot
    on another engine that is up.
    """
    said = Withdrawal.parse(signed_payload(change.rows, envelope, payload_type=WITHDRAWAL, role="engine"))
    engine = change.rows.engines.get(said.engine)
    if engine is None:
        raise EngineNotFound(f"no engine {said.engine} was announced")
    _check_up(engine, said.boot)
    _by_its_key(change, envelope, engine, payload_type=WITHDRAWAL)
    slots = change.rows.engines.slots()
    held = {slot.version for slot in slots if slot.engine == said.engine}
    boots = {each.engine: each.boot for each in change.rows.engines.all() if each.up}
    elsewhere = {
        slot.version for slot in slots if slot.engine != said.engine and boots.get(slot.engine) == slot.boot
    }
    ending = tuple(sorted(held.intersection(said.versions)))
    if missing := [version for version in ending if version not in elsewhere]:
        raise EngineNeeded(f"{len(missing)} versions have no other engine", versions=tuple(missing))
    if ending:
        document = said.model_copy(update={"versions": ending})
        body = {"withdrawal": document.model_dump(mode="json"), "envelope": envelope.model_dump(mode="json")}
        change.write(ENGINE_WITHDREW, _subject(engine), body)


def _faults(found: Attestation, engine: EngineState, stored: StoredVersion) -> list[str]:
    manifest = stored.manifest
    faults = []
    if found.base != engine.base or found.base != manifest.base:
        faults.append("the engine's base, the version's and the attestation's differ")
    if (found.dtype, found.engine_version) != (engine.dtype, engine.engine_version):
        faults.append("the engine announced another dtype or version of vLLM")
    if stored.fingerprint is None or found.fingerprint != stored.fingerprint:
        faults.append("the fingerprint is not the version's")
    if found.contract != manifest.contract.digest:
        faults.append("the contract is not the version's")
    if found.passed and not plausible(
        dtype=found.dtype,
        own_distance=found.own_distance,
        nearest=found.nearest,
        strength=found.strength,
        noise=found.noise,
    ):
        faults.append("it claims to have passed, and its own figures say otherwise")
    if not found.passed and found.strength != "failed":
        faults.append(f"it did not pass and calls its strength {found.strength}")
    return faults


def _subject(state: EngineState) -> str:
    return f"{state.engine}/{state.boot}"
