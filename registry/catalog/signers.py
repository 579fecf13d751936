"""Trust public keys, and stop trusting them."""

from registry.catalog.change import Change
from registry.catalog.errors import SignerDistrusted, SignerInvalid, SignerNotFound
from registry.catalog.projection import SIGNER_DISTRUSTED, SIGNER_TRUSTED
from registry.catalog.tenants import check_reason
from registry.errors import AlreadyExists
from registry.models import PublicKey
from registry.signing.envelope import key_id


def trust(change: Change, key: PublicKey) -> None:
    """Trusting the same key twice changes nothing; one key never gets a second role or a second chance."""
    if key_id(bytes.fromhex(key.ed25519)) != key.id:
        raise SignerInvalid("the id of a signer is the start of its key's SHA-256, and this one's is not")
    if change.rows.signers.distrusted(key.id):
        raise SignerDistrusted(f"the signer {key.id} was distrusted, and stays so")
    known = change.rows.signers.get(key.id)
    if known is None:
        if key.role == "log" and key != change.ledger.key:
            raise SignerInvalid("a log key comes in by rotation: the key before it introduces it")
        change.write(SIGNER_TRUSTED, key.id, {"signer": key.model_dump(mode="json")})
    elif known != key:
        raise AlreadyExists(f"the signer {key.id} is already trusted, as {known.role}")


def distrust(change: Change, signer: str, *, reason: str) -> None:
    """Nothing it signs from now on counts; what the log already holds does, because it was trusted then.

    Distrusting twice changes nothing (the first reason stays). Raises SignerNotFound.
    """
    check_reason(reason)
    if change.rows.signers.distrusted(signer):
        return
    known = change.rows.signers.get(signer)
    if known is None:
        raise SignerNotFound(f"there is no signer {signer[:80]!r}")
    if known.role == "log":
        raise SignerInvalid("heads are signed with this key: rotate the log key instead")
    change.write(SIGNER_DISTRUSTED, signer, {"reason": reason})
