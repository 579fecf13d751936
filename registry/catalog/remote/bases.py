"""Bases, from afar."""

from registry.catalog.remote.errors import AnswerInvalid
from registry.catalog.remote.pages import items
from registry.catalog.remote.part import Part
from registry.catalog.remote.wire import member, path, read
from registry.contract import Contract
from registry.digests import Digest
from registry.models import Base


class Bases(Part):
    def register_base(self, base: Base, contract: Contract, *, actor: str) -> Digest:
        """Raises ContractInvalid, AnswerInvalid."""
        body = {"base": base.model_dump(mode="json"), "contract": contract.model_dump(mode="json")}
        digest = read(Digest, member(self._wire.post("/bases", body), "digest"))
        if digest != base.identity():
            raise AnswerInvalid("the registry registered another base than it was given")
        return digest

    def base(self, ref: str) -> tuple[Digest, Base, Contract]:
        """By digest, or by name: the one registered last. Raises BaseNotFound, AnswerInvalid."""
        answer = self._wire.get(path("bases", ref))
        digest = read(Digest, member(answer, "digest"))
        base = read(Base, member(answer, "base"))
        contract = read(Contract, member(answer, "contract"))
        asked = ref == digest if ref.startswith("sha256:") else ref == base.name
        if base.identity() != digest or contract.base != digest or not asked:
            raise AnswerInvalid("the registry's base is not the one that was asked for")
        return digest, base, contract

    def bases(self) -> dict[Digest, Base]:
        """All that were registered. Raises AnswerInvalid."""
        found = {
            read(Digest, member(item, "digest")): read(Base, member(item, "base"))
            for item in items(self._wire, "/bases")
        }
        if any(base.identity() != digest for digest, base in found.items()):
            raise AnswerInvalid("the registry listed a base under another digest")
        return found
