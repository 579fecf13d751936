"""Keys of registries that this user has logged in to: one file each, for nobody else's eyes."""

import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from registry.canonical import Document
from registry.digests import Digest
from registry.errors import InvalidDocument, SigningKeyExposed
from server.errors import NotLoggedIn


class Login(Document):
    kind: Literal["tenon.login/v1"] = "tenon.login/v1"
    url: str
    key: str


@dataclass(frozen=True, slots=True)
class Logins:
    folder: Path

    def save(self, login: Login) -> Path:
        """Replaces an earlier one of the same URL; the file appears whole or not at all."""
        target = self._file(login.url)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(login.canonical())
            temporary.rename(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return target

    def key(self, url: str) -> str:
        """Raises NotLoggedIn, SigningKeyExposed (readable by others), InvalidDocument."""
        path = self._file(url)
        hint = f"tenon login {url}"
        try:
            with path.open("rb") as stream:
                mode = os.fstat(stream.fileno()).st_mode
                data = stream.read(1 << 16)
        except FileNotFoundError:
            raise NotLoggedIn(f"no key for {url}", hint=hint) from None
        if stat.S_IMODE(mode) & 0o077:
            raise SigningKeyExposed(f"the login file {path} is open to other users")
        try:
            login = Login.parse(data)
        except InvalidDocument:  # its text may quote the file, and the file holds a secret
            raise InvalidDocument(f"{path} is not a login", hint=hint) from None
        if login.url != url:
            raise NotLoggedIn(f"{path} is the login of another URL", hint=hint)
        return login.key

    def forget(self, url: str) -> bool:
        """Whether there was one."""
        try:
            self._file(url).unlink()
        except FileNotFoundError:
            return False
        return True

    def _file(self, url: str) -> Path:
        """A URL holds characters that file names cannot."""
        return self.folder / "logins" / f"{Digest.of(url.encode()).hex[:32]}.json"
