"""The endpoints that ask an engine."""

from router.surfaces.chat.surface import Chat
from router.surfaces.surface import Surface

SURFACES: tuple[Surface, ...] = (Chat(),)
