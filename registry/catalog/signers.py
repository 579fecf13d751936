"""Trust public keys."""

from registry.catalog.change import Change
from registry.catalog.errors import SignerInvalid
from registry.catalog.projection import SIGNER_TRUSTED
from registry.errors import AlreadyExists
from registry.models import PublicKey
from registry.signing.envelope import key_id


def trust(change: Change, key: PublicKey) -> None:
    """Trusting the same key twice changes nothing; one key never gets a second role."""
    if key_id(bytes.fromhex(key.ed25519)) != key.id:
        raise SignerInvalid("the id of a signer is the start of its key's SHA-256, and this one's is not")
    known = change.rows.signers.all().get(key.id)
    if known is None:
        change.write(SIGNER_TRUSTED, key.id, {"signer": key.model_dump(mode="json")})
    elif known != key:
        raise AlreadyExists(f"the signer {key.id} is already trusted, as {known.role}")
