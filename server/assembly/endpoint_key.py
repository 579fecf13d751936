"""The key of recipes' endpoints, for the one host that it is meant for."""

from typing import Final

from server import settings
from server.errors import SettingsInvalid

_PORTS: Final = {"http": 80, "https": 443}


def endpoint_key(url: str) -> str | None:
    """The key that may be sent to ``url``, or None: whoever writes a recipe chooses its URLs, and would
    otherwise collect the key of whoever trains it. Raises SettingsInvalid."""
    given = settings.load(settings.TrainerSettings)
    if given.endpoint_key_file is None:
        return None
    if given.endpoint_host is None:
        raise SettingsInvalid("TENON_ENDPOINT_HOST: say which host TENON_ENDPOINT_KEY_FILE is for")
    if not _allows(given.endpoint_host, url):
        return None
    try:
        return given.endpoint_key_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsInvalid(f"TENON_ENDPOINT_KEY_FILE: {error.strerror}") from None


def _allows(host: str, url: str) -> bool:
    """httpx reads the URL, as it does when the key is sent: two parsers may disagree about a crafted one."""
    from httpx import URL, InvalidURL

    try:
        wanted, asked = URL(f"https://{host}"), URL(url)
    except InvalidURL:
        return False
    port = wanted.port or _PORTS["https"]
    in_clear = asked.scheme != "https" and port == _PORTS["https"]
    return not in_clear and (asked.host, asked.port or _PORTS[asked.scheme]) == (wanted.host, port)
