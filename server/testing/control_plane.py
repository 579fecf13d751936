"""A control plane in memory: :class:`server.engines.ports.ControlPlane` without a registry."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from registry.catalog.errors import EngineDown, EngineNeeded, EngineReplaced
from registry.contract import Contract
from registry.digests import Digest
from registry.errors import BlobNotFound, VersionNotFound
from registry.feed import News, Position, Snapshot, State, difference
from registry.fingerprint import Attestation, Fingerprint
from registry.manifests import BlobRef, LoraShape, Manifest, Provenance
from registry.models import (
    AliasState,
    Base,
    EngineState,
    Former,
    Isolation,
    PublicKey,
    Slot,
    Tenant,
    VersionState,
    Withdrawal,
)
from registry.names import LIVE
from registry.signing.envelope import Envelope, verify
from registry.signing.types import ANNOUNCEMENT, ATTESTATION, WITHDRAWAL
from server.errors import ControlUnreachable
from server.testing.fake_model import fake_contract, fake_fingerprint, weights_of

_FILES = ("adapter_config.json", "adapter_model.safetensors")


class InMemoryControlPlane:
    """Keeps nothing over a restart and gates nothing: publishing and moving an alias need no verdict."""

    def __init__(self, *, base: Base, trust: PublicKey, contract: Contract | None = None) -> None:
        """``trust``: the only key whose attestations count. ``contract``: default the fake engine's."""
        self.base = base
        self.contract = contract or fake_contract(base)
        self.announced: list[EngineState] = []
        self.attestations: list[Attestation] = []
        """All that were accepted, passed or not, in order."""
        self.withdrawn: list[Withdrawal] = []
        self.renewed: list[tuple[str, str]] = []
        """(engine, boot) of every word of an agent that it is there."""
        self.reachable = True
        self._trust = {trust.id: trust}
        self._bases = {base.identity(): base}
        self._blobs: dict[Digest, bytes] = {}
        self._manifests: dict[Digest, Manifest] = {}
        self._versions: dict[Digest, VersionState] = {}
        self._aliases: dict[tuple[str, str, str], AliasState] = {}
        self._since: dict[tuple[str, str, str], int] = {}
        """The epoch in which an alias's version became its."""
        self._engines: dict[str, EngineState] = {}
        self._boots: set[tuple[str, str]] = set()
        self._isolations: dict[str, Isolation] = {}
        self._slots: dict[tuple[str, Digest], Slot] = {}
        self._size = 0
        self._told: dict[Position, Snapshot] = {}
        self._changed = asyncio.Event()
        self._watching: list[Callable[[], None]] = []

    # What tests and demos do to the registry

    def publish(
        self,
        folder: Path,
        *,
        tenant: str,
        adapter: str = "assistant",
        fingerprint: Fingerprint | None = None,
        fingerprinted: bool = True,
        contract: Contract | None = None,
    ) -> Digest:
        """A version from a PEFT folder; without ``fingerprint`` it gets the fake engine's for these bytes."""
        config = json.loads((folder / "adapter_config.json").read_bytes())
        base = self.base.identity()
        reference = None
        if fingerprinted:
            made = fingerprint or fake_fingerprint(base, weights_of(folder))
            reference = self._store("fingerprint.json", made.canonical())
        manifest = Manifest(
            tenant=tenant,
            adapter=adapter,
            base=base,
            lora=LoraShape(rank=config["r"], alpha=config["lora_alpha"], targets=("q_proj",)),
            files=tuple(self._store(name, (folder / name).read_bytes()) for name in _FILES),
            contract=self._store("contract.json", (contract or self.contract).canonical()),
            fingerprint=reference,
            provenance=Provenance(method="upload"),
        )
        version = manifest.identity()
        self._manifests[version] = manifest
        self._versions[version] = VersionState(
            version=version, tenant=tenant, adapter=adapter, base=base, rank=manifest.lora.rank
        )
        self._entry()
        return version

    def point(self, version: Digest, *, alias: str = LIVE) -> None:
        """Move the alias of the version's adapter to it."""
        state = self._versions[version]
        key = (state.tenant, state.adapter, alias)
        before = self._aliases.get(key)
        former = before.former if before else None
        if before is not None and before.version != version:
            former = Former(version=before.version, epoch=before.epoch, since=self._since[key])
        if before is None or before.version != version:
            self._since[key] = before.epoch + 1 if before else 1
        self._aliases[key] = AliasState(
            tenant=state.tenant,
            adapter=state.adapter,
            alias=alias,
            version=version,
            epoch=before.epoch + 1 if before else 1,
            former=former if former is None or former.version != version else None,
        )
        self._entry()

    def isolate(self, tenant: str, isolation: Isolation) -> None:
        self._isolations[tenant] = isolation
        self._entry()

    def watch(self, look: Callable[[], None]) -> None:
        """Call ``look`` after every change from now on."""
        self._watching.append(look)

    def suppose_dead(self, engine: str) -> None:
        """As a control plane that did not hear of the engine's agent for too long."""
        self._engines[engine] = self._engines[engine].model_copy(update={"up": False})
        self._slots = {key: slot for key, slot in self._slots.items() if key[0] != engine}
        self._entry()

    def revoke(self, version: Digest) -> None:
        self._versions[version] = self._versions[version].model_copy(update={"revoked": True})
        self._slots = {key: slot for key, slot in self._slots.items() if key[1] != version}
        self._entry()

    def forget_blob(self, digest: Digest) -> bytes:
        """As if it were lost; returns it, so that a test can put it back with :meth:`put_blob`."""
        return self._blobs.pop(digest)

    def put_blob(self, data: bytes) -> None:
        self._blobs[Digest.of(data)] = data
        self._entry()

    @property
    def slots(self) -> set[Digest]:
        """The versions that routers may send requests for, now."""
        return {slot.version for slot in self._slots.values() if self._lives(slot)}

    # What agents call

    async def read(self, known: Position | None, wait: float) -> News | None:
        self._check()
        if known is not None and self._size <= known.size:
            changed = self._changed
            try:
                async with asyncio.timeout(wait):
                    await changed.wait()
            except TimeoutError:
                return None
        self._check()
        found = self.snapshot()
        before = self._told.get(known) if known is not None else None
        self._told[found.position] = found
        return (before and difference(before, found)) or found

    async def manifest(self, version: Digest) -> Manifest:
        self._check()
        if version not in self._manifests:
            raise VersionNotFound(f"no version {version.short}")
        return self._manifests[version]

    async def blob(self, digest: Digest) -> bytes:
        self._check()
        if digest not in self._blobs:
            raise BlobNotFound(f"no blob {digest.short}")
        return self._blobs[digest]

    async def announce(self, engine: str, envelope: Envelope) -> None:
        """Raises SignatureInvalid, EngineReplaced."""
        self._check()
        body = verify(envelope, payload_type=ANNOUNCEMENT, trusted=self._trust, role="engine")
        state = EngineState.parse(body)
        known = self._engines.get(state.engine)
        same = known is not None and known.boot == state.boot
        if known is not None and same and known.model_copy(update={"up": state.up}) != state:
            raise EngineReplaced(f"{engine} changed without a new boot")
        if known is not None and known.boot != state.boot and (state.engine, state.boot) in self._boots:
            raise EngineReplaced("this boot was replaced by a later one")
        self.announced.append(state)
        if known == state:
            return
        self._boots.add((state.engine, state.boot))
        self._engines[state.engine] = state
        self._slots = {key: slot for key, slot in self._slots.items() if key[0] != state.engine}
        self._entry()

    async def alive(self, engine: str, boot: str) -> bool:
        self._check()
        self.renewed.append((engine, boot))
        known = self._engines.get(engine)
        return known is not None and known.boot == boot and known.up

    async def withdraw(self, engine: str, envelope: Envelope) -> None:
        """Raises SignatureInvalid, EngineReplaced, EngineDown, EngineNeeded."""
        self._check()
        said = Withdrawal.parse(verify(envelope, payload_type=WITHDRAWAL, trusted=self._trust, role="engine"))
        self._of_the_engine(said.engine, said.boot)
        for version in said.versions:
            if not any(
                slot.version == version and slot.engine != said.engine and self._lives(slot)
                for slot in self._slots.values()
            ):
                raise EngineNeeded("a version has no other engine", versions=(version,))
        for version in said.versions:
            self._slots.pop((said.engine, version), None)
        self.withdrawn.append(said)
        self._entry()

    async def attest(self, envelope: Envelope) -> int:
        """Raises SignatureInvalid, EngineReplaced, EngineDown."""
        self._check()
        body = verify(envelope, payload_type=ATTESTATION, trusted=self._trust, role="engine")
        found = Attestation.parse(body)
        self._of_the_engine(found.engine, found.boot)
        self.attestations.append(found)
        key = (found.engine, found.version)
        if found.passed:
            self._slots[key] = Slot(
                engine=found.engine, boot=found.boot, version=found.version, attestation=Digest.of(body)
            )
        else:
            self._slots.pop(key, None)
        self._entry()
        return self._size

    def snapshot(self) -> Snapshot:
        told = Snapshot(
            size=self._size,
            root=Digest.of(b"%d" % self._size),
            tenants=tuple(
                Tenant(
                    id=tenant,
                    display_name=tenant,
                    isolation=self._isolations.get(tenant, Isolation()),
                )
                for tenant in sorted({state.tenant for state in self._versions.values()})
            ),
            bases=self._bases,
            aliases=tuple(self._aliases.values()),
            versions=tuple(self._versions.values()),
            engines=tuple(self._engines.values()),
            slots=tuple(slot for slot in self._slots.values() if self._lives(slot)),
        )
        return State.of(told).snapshot()  # in the order of its keys

    def _of_the_engine(self, engine: str, boot: str) -> None:
        known = self._engines.get(engine)
        if known is None or known.boot != boot:
            raise EngineReplaced("this boot was replaced by a later one")
        if not known.up:
            raise EngineDown("this boot counts as down")

    def _lives(self, slot: Slot) -> bool:
        engine = self._engines.get(slot.engine)
        return engine is not None and engine.up and engine.boot == slot.boot

    def _store(self, path: str, data: bytes) -> BlobRef:
        digest = Digest.of(data)
        self._blobs[digest] = data
        return BlobRef(path=path, digest=digest, size=len(data))

    def _entry(self) -> None:
        self._size += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        for look in self._watching:
            look()

    def _check(self) -> None:
        if not self.reachable:
            raise ControlUnreachable("no answer from the control plane: switched off")
