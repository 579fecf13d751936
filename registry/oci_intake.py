"""An OCI image layout from somewhere, without trust: every byte is counted and hashed, and no name is used.

A layout says in five places what it holds (index, manifest, config, titles, file names); all of them must say
the same. What is written goes into a folder that this process made, under names that Tenon chose.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from registry.canonical import decode
from registry.contract import Contract
from registry.digests import Digest
from registry.errors import InvalidDocument, LayoutInvalid
from registry.fingerprint import Fingerprint
from registry.manifests import Manifest
from registry.oci import ARTIFACT, ENVELOPE, LAYERS, MANIFEST, OCI_MANIFEST, SIGNATURE, TAG, TITLE, files_of
from registry.signing.envelope import Envelope

M = TypeVar("M", bound=BaseModel)

MAX_DOCUMENT: Final = 4 << 20
"""Bytes of a JSON document; what OCI registries take as a manifest (distribution-spec 1.1)."""
MAX_LISTED: Final = 256
MAX_FILE: Final = 8 << 30
"""Bytes, as for what comes out of an archive."""
_CHUNK: Final = 1 << 20
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Open(BaseModel):
    """The specification has readers ignore what they do not know."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Descriptor(_Open):
    mediaType: str = Field(max_length=255)  # noqa: N815
    digest: Digest
    """Another algorithm than SHA-256 is refused: nothing here could check it."""
    size: int = Field(ge=0, le=MAX_FILE)
    annotations: dict[str, str] = Field(default_factory=dict)


class _Artifact(_Open):
    schemaVersion: int = Field(ge=2, le=2)  # noqa: N815
    artifactType: str | None = None  # noqa: N815
    config: _Descriptor
    layers: tuple[_Descriptor, ...] = Field(max_length=16)
    subject: _Descriptor | None = None


class _Index(_Open):
    schemaVersion: int = Field(ge=2, le=2)  # noqa: N815
    manifests: tuple[_Descriptor, ...] = Field(max_length=MAX_LISTED)


class _Layout(_Open):
    imageLayoutVersion: str = Field(pattern=r"^1\.[0-9]+\.[0-9]+$")  # noqa: N815


@dataclass(frozen=True, slots=True)
class Imported:
    manifest: Manifest
    contract: Contract
    fingerprint: Fingerprint | None
    signatures: tuple[Envelope, ...]
    """Not verified: whether their signers are trusted is for whoever takes the version."""


def read(folder: Path, private: Path, *, tag: str | None = None) -> Imported:
    """The adapter's files are copied to ``private``, an empty folder. Raises LayoutInvalid."""
    try:
        return _Reader(folder).read(private, tag)
    except InvalidDocument as error:
        raise LayoutInvalid(f"the layout holds a document that cannot be read: {error.message}") from None


class _Reader:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, private: Path, tag: str | None) -> Imported:
        _parsed(_Layout, self._bytes("oci-layout", MAX_DOCUMENT))
        index = _parsed(_Index, self._bytes("index.json", MAX_DOCUMENT))
        listed = [
            (each, _parsed(_Artifact, self._blob(each)))
            for each in index.manifests
            if each.mediaType == OCI_MANIFEST
        ]
        described, artifact = _chosen(listed, tag)
        config = self._blob(artifact.config)
        manifest = Manifest.parse(config)
        if manifest.canonical() != config:
            raise LayoutInvalid("the config is not canonical: its digest would be no version")
        _check_layers(artifact.layers, manifest)
        for layer in artifact.layers:
            title = layer.annotations[TITLE]
            if title not in (manifest.contract.path, "fingerprint.json"):
                self._copy(layer, private / title)
        by_title = {layer.annotations[TITLE]: layer for layer in artifact.layers}
        contract = Contract.parse(self._blob(by_title[manifest.contract.path]))
        fingerprint = None
        if manifest.fingerprint is not None:
            fingerprint = Fingerprint.parse(self._blob(by_title[manifest.fingerprint.path]))
        for document, ref in ((contract, manifest.contract), (fingerprint, manifest.fingerprint)):
            if document is not None and ref is not None and document.identity() != ref.digest:
                raise LayoutInvalid(f"{ref.path} is not canonical")
        signatures = tuple(
            Envelope.parse(self._blob(each.layers[0]))
            for _, each in listed
            if each.artifactType == SIGNATURE
            and each.subject is not None
            and each.subject.digest == described.digest
            and [layer.mediaType for layer in each.layers] == [ENVELOPE]
        )
        return Imported(manifest, contract, fingerprint, signatures)

    def _blob(self, described: _Descriptor) -> bytes:
        if described.size > MAX_DOCUMENT:
            raise LayoutInvalid(f"a document of {described.size} bytes is too large")
        data = self._bytes(f"blobs/sha256/{described.digest.hex}", described.size)
        if len(data) != described.size or Digest.of(data) != described.digest:
            raise LayoutInvalid(f"the bytes of {described.digest.short} are not what the layout says")
        return data

    def _copy(self, described: _Descriptor, target: Path) -> None:
        seen, left = hashlib.sha256(), described.size
        source = self._open(f"blobs/sha256/{described.digest.hex}")
        with os.fdopen(source, "rb") as stream, target.open("xb") as copy:
            while piece := stream.read(_CHUNK):
                left -= len(piece)
                if left < 0:
                    break
                seen.update(piece)
                copy.write(piece)
        if left or seen.hexdigest() != described.digest.hex:
            raise LayoutInvalid(f"the bytes of {described.digest.short} are not what the layout says")

    def _bytes(self, path: str, limit: int) -> bytes:
        with os.fdopen(self._open(path), "rb") as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise LayoutInvalid(f"{path} is larger than the {limit} bytes it may have")
        return data

    def _open(self, path: str) -> int:
        """Step by step without following links: a layout must not read other files of this machine."""
        *folders, name = path.split("/")
        try:
            at = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for part in folders:
                    below = os.open(part, _FOLDER, dir_fd=at)
                    os.close(at)
                    at = below
                found = os.open(name, _FILE, dir_fd=at)
            finally:
                os.close(at)
        except OSError as error:
            raise LayoutInvalid(f"{path} cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise LayoutInvalid(f"{path} is no file")
        return found


def _chosen(
    listed: Sequence[tuple[_Descriptor, _Artifact]], tag: str | None
) -> tuple[_Descriptor, _Artifact]:
    found = [
        (described, artifact)
        for described, artifact in listed
        if artifact.artifactType == ARTIFACT and tag in (None, described.annotations.get(TAG))
    ]
    if len({described.digest for described, _ in found}) > 1:
        raise LayoutInvalid(
            "the layout holds several adapters", hint="name one of its tags (index.json has them) with --tag"
        )
    if not found:
        raise LayoutInvalid("the layout holds no adapter" + (f" tagged {tag[:80]!r}" if tag else ""))
    if found[0][1].config.mediaType != MANIFEST:
        raise LayoutInvalid("the artifact's config is no Tenon manifest")
    return found[0]


def _check_layers(layers: Sequence[_Descriptor], manifest: Manifest) -> None:
    """Exactly the manifest's files, each with its own name, type, digest and size."""
    named = [ref.path for ref in files_of(manifest)]
    if named != list(LAYERS)[: len(named)]:
        raise LayoutInvalid("the manifest names other files than an adapter has")
    wanted = {ref.path: (LAYERS.get(ref.path), ref.digest, ref.size) for ref in files_of(manifest)}
    given = {
        layer.annotations.get(TITLE, ""): (layer.mediaType, layer.digest, layer.size) for layer in layers
    }
    if len(given) != len(layers):
        raise LayoutInvalid("two layers have the same title, or none")
    if strange := sorted(given.keys() - LAYERS.keys()):
        raise LayoutInvalid(f"{ascii(strange[0])[:80]} does not belong to an adapter")
    for title in LAYERS:
        if given.get(title) != wanted.get(title):
            raise LayoutInvalid(f"the layer {title} is not what the manifest says")


def _parsed(model: type[M], data: bytes) -> M:
    value = decode(data)
    try:
        # Lists as tuples, as everywhere that JSON is read.
        return model.model_validate(value, strict=False)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "document"
        raise LayoutInvalid(f"the layout is not one: {where}: {fault['msg']}") from None
