"""The format of API keys: ``tn_<key id>_<43 characters>``.

The id is in the clear so that a key is found without trying every hash, and so that a leaked key can be
revoked from what a scanner or a log line shows of it. The fixed prefix is what secret scanners match on.
"""

import base64
import hmac
import re
from collections.abc import Callable

from registry.digests import Digest
from registry.models import Key

PREFIX = "tn"
_ID_BYTES = 8
_SECRET_BYTES = 32
SECRET_LENGTH = 63
_FORMAT = re.compile(r"tn_([0-9a-f]{16})_[A-Za-z0-9_-]{43}", re.ASCII)


def mint(entropy: Callable[[int], bytes]) -> tuple[str, str]:
    """A new (key id, secret). ``entropy(n)`` must give n unpredictable bytes."""
    key_id = entropy(_ID_BYTES).hex()
    body = base64.urlsafe_b64encode(entropy(_SECRET_BYTES)).rstrip(b"=").decode("ascii")
    return key_id, f"{PREFIX}_{key_id}_{body}"


def key_id(secret: str) -> str | None:
    """The id inside a secret; None for text that cannot be a Tenon key (so nothing needs to be looked up)."""
    match = _FORMAT.fullmatch(secret)
    return match.group(1) if match else None


def opens(secret: str, key: Key) -> bool:
    """Whether ``secret`` is this key and the key still counts; takes the same time wherever they differ."""
    try:
        shown = Digest.of(secret.encode("utf-8"))
    except UnicodeEncodeError:  # a lone surrogate: cannot be a key
        return False
    return hmac.compare_digest(shown, key.secret_hash) and not key.revoked
