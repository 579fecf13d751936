"""Register bases with their contracts, and find them."""

from registry.catalog.change import Change
from registry.catalog.errors import ContractInvalid
from registry.catalog.projection import BASE_REGISTERED
from registry.contract import Contract
from registry.digests import Digest
from registry.errors import BaseNotFound
from registry.models import Base
from registry.store.transaction import Transaction


def register(change: Change, base: Base, contract: Contract) -> Digest:
    """Makes ``base`` the one that its name means. Changes nothing when it is already, with this contract."""
    digest = base.identity()
    expected = (digest, base.tokenizer, base.chat_template)
    if (contract.base, contract.tokenizer, contract.chat_template) != expected:
        raise ContractInvalid("the contract is about another base, tokenizer or chat template")
    if not contract.golden:
        raise ContractInvalid("the contract holds no golden conversation, so it could not be checked")
    known = change.rows.bases.get(digest)
    if known is None or known[1] != contract or change.rows.bases.latest(base.name) != digest:
        body = {"base": base.model_dump(mode="json"), "contract": contract.model_dump(mode="json")}
        change.write(BASE_REGISTERED, digest, body)
    return digest


def find(rows: Transaction, ref: str) -> tuple[Digest, Base, Contract]:
    """By digest, or by name: then the one registered last. Raises BaseNotFound."""
    digest = ref if ref.startswith("sha256:") else rows.bases.latest(ref)
    found = rows.bases.get(digest) if digest else None
    if digest is None or found is None:
        raise BaseNotFound(f"there is no base {ref[:200]!r}")
    return Digest(digest), *found
