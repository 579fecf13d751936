import io
from pathlib import Path

import pytest

from registry.canonical import Document
from registry.digests import Digest, chunks
from registry.errors import InvalidDigest, InvalidDocument

EMPTY = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_known_answer(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    assert Digest.of(b"") == EMPTY == Digest.of_file(tmp_path / "empty")
    assert Digest(EMPTY).hex == EMPTY[7:]


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY[7:],
        EMPTY.upper(),
        EMPTY + "\n",
        EMPTY[:-1],
        EMPTY + "0",
        " " + EMPTY,
        EMPTY.replace("sha256", "sha512"),
        "sha256:" + "٣" * 64,
        "sha256:../../../etc/passwd",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest(text)


def test_digests_in_documents_are_checked() -> None:
    class Holder(Document):
        digest: Digest

    held = Holder.parse(f'{{"digest":"{EMPTY}"}}').digest
    assert isinstance(held, Digest)
    with pytest.raises(InvalidDocument):
        Holder.parse('{"digest":"sha256:0"}')


def test_chunks_cover_the_rest_of_a_stream() -> None:
    stream = io.BytesIO(b"0123456789")
    stream.read(1)
    assert list(chunks(stream, 4)) == [b"1234", b"5678", b"9"]
