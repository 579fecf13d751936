"""Secrets come as files, as Kubernetes mounts them."""

from pathlib import Path

from server.errors import SettingsInvalid


def read_secret(path: Path) -> str:
    """The file's text, stripped; raises SettingsInvalid if it is missing or too short."""
    try:
        secret = path.read_text().strip()
    except OSError as error:
        raise SettingsInvalid(f"secret file {path} cannot be read: {error.strerror}") from None
    if len(secret) < 32:
        raise SettingsInvalid(f"secret file {path} holds fewer than 32 characters")
    return secret


def read_url(path: Path) -> str:
    """A URL that holds a password; raises SettingsInvalid if the file is missing or empty."""
    try:
        url = path.read_text().strip()
    except OSError as error:
        raise SettingsInvalid(f"secret file {path} cannot be read: {error.strerror}") from None
    if not url:
        raise SettingsInvalid(f"secret file {path} is empty")
    return url
