"""The endpoints that ask an engine."""

from router.surfaces.chat.surface import Chat
from router.surfaces.completions.surface import Completions
from router.surfaces.embeddings import Embeddings
from router.surfaces.messages.surface import Messages
from router.surfaces.responses.surface import Responses
from router.surfaces.surface import Surface

MESSAGES = Messages()
SURFACES: tuple[Surface, ...] = (Chat(), Completions(), Embeddings(), Responses(), MESSAGES)
