"""From a stored column back to a document, without trusting it."""

from typing import TypeVar

from registry.canonical import Document
from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.store.errors import StoreCorrupt

D = TypeVar("D", bound=Document)


def text_of(document: Document) -> str:
    return document.canonical().decode("utf-8")


def parsed(model: type[D], text: str, *, digest: str | None = None) -> D:
    """The document in ``text``; StoreCorrupt if it is none, or not the one that ``digest`` names."""
    try:
        if digest is not None and Digest.of(text.encode("utf-8", "surrogatepass")) != digest:
            raise StoreCorrupt(f"the stored {model.__name__} is not {digest}")
        return model.parse(text)
    except InvalidDocument:
        raise StoreCorrupt(f"a stored {model.__name__} cannot be read") from None


def built(model: type[D], **values: object) -> D:
    """A document from plain columns, checked like any other input."""
    try:
        return model.build(values)
    except InvalidDocument:
        raise StoreCorrupt(f"a stored {model.__name__} cannot be read") from None
