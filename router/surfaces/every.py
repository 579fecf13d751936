"""The endpoints that ask an engine."""

from router.surfaces.chat.surface import Chat
from router.surfaces.completions.surface import Completions
from router.surfaces.embeddings import Embeddings
from router.surfaces.surface import Surface

SURFACES: tuple[Surface, ...] = (Chat(), Completions(), Embeddings())
