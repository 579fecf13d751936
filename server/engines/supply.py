"""Gets one version onto this machine, checked: its documents, its contract on this engine, its files."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from registry.digests import Digest
from registry.errors import IntakeRefused
from registry.intake import inspect
from registry.models import Base, VersionState
from server.engines.attest import Probed, check_contract
from server.engines.cache import AdapterCache
from server.engines.errors import ContractMismatch
from server.engines.packages import NotServable, Package, fetch_package
from server.engines.ports import ControlPlane
from server.engines.sizes import RANKS


@dataclass(frozen=True, slots=True)
class Delivery:
    package: Package
    folder: Path
    """Verified and read-only."""


class Supply:
    """Of one boot: a contract is checked once on it."""

    def __init__(
        self, *, control: ControlPlane, cache: AdapterCache, engine: Probed, base: Digest, model: str
    ) -> None:
        """``model``: a name that the engine answers to; it only selects the tokenizer."""
        self._control = control
        self._cache = cache
        self._engine = engine
        self._base = base
        self._model = model
        self._contracts: dict[Digest, str | None] = {}
        """Contract digest -> what is wrong with it on this engine; None when it holds."""

    async def bring(self, version: VersionState, *, base: Base) -> Delivery:
        """``base``: the registered one. Raises NotServable, ContractMismatch, EngineUnreachable, and whatever
        the control plane and the disk raise (then it may work later)."""
        package = await fetch_package(self._control, version, base=self._base)
        # The files while the contract is checked: both wait for somebody else.
        fetching = asyncio.ensure_future(
            self._cache.ensure(version.version, package.manifest, self._control.blob)
        )
        try:
            if (wrong := await self._contract_fault(package)) is not None:
                raise ContractMismatch(wrong)
            folder = await fetching
            await asyncio.to_thread(_inspect, folder, base)
            return Delivery(package, folder)
        finally:
            if not fetching.done():
                fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)

    async def _contract_fault(self, package: Package) -> str | None:
        digest = package.contract_digest
        if digest not in self._contracts:
            try:
                await check_contract(self._engine, package.contract, base=self._base, model=self._model)
            except ContractMismatch as error:
                self._contracts[digest] = error.message
            else:
                self._contracts[digest] = None
        return self._contracts[digest]


def _inspect(folder: Path, base: Base) -> None:
    """Whatever the registry let in: NaN or huge weights load with 200 and poison everybody's cache (D12)."""
    try:
        inspect(folder, base=base, max_rank=RANKS[-1])
    except IntakeRefused as error:
        raise NotServable(f"{error.code}: {error.message}") from None
