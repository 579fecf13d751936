"""A key for each tenant, so that deleting one file makes all that was kept of that tenant unreadable.

A tenant's key is random and lies beside the records, encrypted with the key that the operator gives the
router: neither a copy of the folder nor the operator's key alone opens anything. From it come two keys, one
to seal texts and one for keyed digests.
"""

import base64
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field

from registry.canonical import Document
from registry.errors import InvalidDocument
from registry.names import Name, parse_name
from router.errors import RetentionUnavailable

FOLDER = "keys"
LEAST_MASTER = 32
_KEY_BYTES = 32
_NONCE_BYTES = 12


class TenantKey(NamedTuple):
    id: str
    """Of the key that sealed a text, so that a text of before a deletion is told from a damaged one."""
    seal: bytes
    mac: bytes


class WrappedKey(Document):
    """A tenant's key as it lies on disk."""

    kind: Literal["tenon.tenant-key/v1"] = "tenon.tenant-key/v1"
    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    tenant: Name
    writer: str
    nonce: str
    wrapped: str


class TenantKeys:
    """The keys of one writer's folder. Synchronous: ``Retainer`` calls it in a thread."""

    def __init__(self, folder: Path, *, writer: str, master: bytes, entropy: Callable[[int], bytes]) -> None:
        """``folder``: of the writer. ``master``: a key, or a key a line: the first one wraps, the others only
        open what they wrapped before. Raises ValueError for a short master key."""
        masters = masters_of(master)
        if any(len(each) < LEAST_MASTER for each in masters):
            raise ValueError(f"the retention key needs at least {LEAST_MASTER} bytes")
        self._folder = folder / FOLDER
        self._writer = writer
        self._wraps = [AESGCM(_derived(each, b"wrap")) for each in masters]
        self._entropy = entropy
        # Two first requests of a tenant must not make two keys, of which one is overwritten.
        self._making = Lock()

    def existing(self, tenant: str) -> TenantKey | None:
        """None: there is none, or it was deleted. Raises RetentionUnavailable for one that does not open."""
        opened = self._opened(tenant)
        return None if opened is None else _tenant_key(opened.id, opened.key)

    def _opened(self, tenant: str) -> "_Opened | None":
        try:
            data = self.path(tenant).read_bytes()
        except FileNotFoundError:
            return None
        try:
            stored = WrappedKey.parse(data)
            nonce, wrapped = base64.b64decode(stored.nonce), base64.b64decode(stored.wrapped)
        except (InvalidDocument, ValueError):
            raise RetentionUnavailable from None
        for number, wrap in enumerate(self._wraps):
            with suppress(InvalidTag):
                key = wrap.decrypt(nonce, wrapped, self._bound(tenant, stored.id))
                return _Opened(stored.id, key, newest=number == 0)
        raise RetentionUnavailable

    def rewrap(self) -> list[str]:
        """Wrap with the first master key what another one wrapped; the tenants. The keys stay what they are.

        Raises RetentionUnavailable, OSError.
        """
        changed = []
        for path in sorted(self._folder.glob("*.json")):
            with self._making, _alone(self._folder):  # or a key that is being forgotten would come back
                opened = self._opened(path.stem)
                if opened is not None and not opened.newest:
                    self._write(path.stem, opened.id, opened.key)
                    changed.append(path.stem)
        return changed

    def make(self, tenant: str) -> TenantKey:
        """The tenant's key, made if there is none; on disk when this returns. Raises OSError."""
        with self._making:
            return self.existing(tenant) or self._made(tenant)

    def _made(self, tenant: str) -> TenantKey:
        identity, key = self._entropy(8).hex(), self._entropy(_KEY_BYTES)
        self._write(tenant, identity, key)
        return _tenant_key(identity, key)

    def _write(self, tenant: str, identity: str, key: bytes) -> None:
        nonce = self._entropy(_NONCE_BYTES)
        wrapped = self._wraps[0].encrypt(nonce, key, self._bound(tenant, identity))
        stored = WrappedKey(
            id=identity, tenant=tenant, writer=self._writer, nonce=_text(nonce), wrapped=_text(wrapped)
        )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.path(tenant)
        draft = path.with_suffix(".new")
        draft.touch(mode=0o600)
        with draft.open("wb") as stream:
            stream.write(stored.canonical())
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
        _sync(self._folder)

    def forget(self, tenant: str) -> bool:
        """Delete the key: what it sealed can be read by nobody any more. False: there was none."""
        try:
            with _alone(self._folder):
                self.path(tenant).unlink()
        except FileNotFoundError:
            return False
        _sync(self._folder)
        return True

    def path(self, tenant: str) -> Path:
        return self._folder / f"{parse_name(tenant, 'tenant')}.json"

    def _bound(self, tenant: str, identity: str) -> bytes:
        """A file under another tenant's name opens nothing."""
        return b"\0".join((b"tenon/tenant-key/v1", self._writer.encode(), tenant.encode(), identity.encode()))


class _Opened(NamedTuple):
    id: str
    key: bytes
    newest: bool
    """Wrapped with the first master key."""


def masters_of(text: bytes) -> list[bytes]:
    """A key a line; lines too short for keys are one key of several lines, as base64 prints it. All of it is
    the last to be tried: it is what such a file meant before it could name several."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        return [text]
    return [text] if any(len(line) < LEAST_MASTER for line in lines) else [*lines, text]


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Among processes. Raises FileNotFoundError when there are no keys yet."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _tenant_key(identity: str, key: bytes) -> TenantKey:
    return TenantKey(identity, _derived(key, b"seal"), _derived(key, b"mac"))


def _derived(key: bytes, purpose: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=b"tenon/retention/v1/" + purpose).derive(key)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _sync(folder: Path) -> None:
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
