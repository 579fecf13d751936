import base64
import json
import pickle
import stat
from pathlib import Path
from typing import Literal

import pytest

from registry.errors import (
    AlreadyExists,
    InvalidDocument,
    SignatureInvalid,
    SigningKeyExposed,
    SigningKeyNotFound,
)
from registry.models import PublicKey
from registry.signing import types
from registry.signing.envelope import Envelope, Signature, preauthentication, verify
from registry.signing.keys import Signer

SEED_A = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
"""RFC 8032, 7.1, test 1; the key ``A`` of the DSSE test vectors."""
PUBLIC_A = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
IN_TOTO = "application/vnd.in-toto+json"


def trust(*signers: Signer) -> dict[str, PublicKey]:
    return {signer.public.id: signer.public for signer in signers}


def replace(envelope: Envelope, **changes: str) -> Envelope:
    return envelope.model_copy(update=changes)


def test_preauthentication_of_the_dsse_document() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert preauthentication("http://example.com/HelloWorld", b"hello world") == expected


def test_preauthentication_counts_bytes_not_characters() -> None:
    assert preauthentication("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


def test_published_vectors_with_either_base64_alphabet() -> None:
    """From the DSSE repository, testvectors/vectors.json: key A, "single-signature" and "url-safe-base64"."""
    signer = Signer("trainer", SEED_A)
    assert signer.public.ed25519 == PUBLIC_A
    single = signer.sign(IN_TOTO, b'{"_type":"https://in-toto.io/Statement/v1"}')
    assert single.signatures[0].sig == (
        "2WAfaHm5jluo0w+0rk8uVkluELJYWjSmU9x7EUzx+AyteDGJ4/nqyJXfmAUVFIAoQafWm7AxBZNw5M9ixNHiCA=="
    )
    url_safe = Envelope(
        payloadType=IN_TOTO,
        payload="-_-_Pj8=",
        signatures=(
            Signature(
                sig="P-_KHICeR7tI6S_YyejJTRtrXhcQyQ2LYPaL8h90KjC9qN8HU_svOQ6TuDOT1HIrsGW886DbWNWcCmX5twLrAw=="
            ),
        ),
    )
    body = verify(url_safe, payload_type=IN_TOTO, trusted=trust(signer), role="trainer")
    assert body == b"\xfb\xff\xbf>?" == url_safe.body()


def test_round_trip_through_json() -> None:
    signer = Signer.generate("log")
    envelope = Envelope.parse(signer.sign(types.LOG_HEAD, b"\x00head").canonical())
    assert verify(envelope, payload_type=types.LOG_HEAD, trusted=trust(signer), role="log") == b"\x00head"


def test_what_was_signed_cannot_be_exchanged() -> None:
    signer = Signer.generate("engine")
    envelope = signer.sign(types.ATTESTATION, b"attested")
    other = base64.b64encode(b"Attested").decode()
    as_report = replace(envelope, payloadType=types.REPORT)
    for forged, kind in ((replace(envelope, payload=other), types.ATTESTATION), (as_report, types.REPORT)):
        with pytest.raises(SignatureInvalid, match="no valid signature"):
            verify(forged, payload_type=kind, trusted=trust(signer), role="engine")
    with pytest.raises(SignatureInvalid, match="expected"):
        verify(envelope, payload_type=types.RECEIPT, trusted=trust(signer), role="engine")


def test_an_empty_trusted_set_refuses() -> None:
    envelope = Signer.generate("log").sign(types.LOG_HEAD, b"")
    with pytest.raises(SignatureInvalid, match="no trusted keys"):
        verify(envelope, payload_type=types.LOG_HEAD, trusted={}, role="log")


def test_a_key_signs_only_for_its_role() -> None:
    trainer, log = Signer.generate("trainer"), Signer.generate("log")
    envelope = trainer.sign(types.LOG_HEAD, b"")
    with pytest.raises(SignatureInvalid, match="no trusted key has the role"):
        verify(envelope, payload_type=types.LOG_HEAD, trusted=trust(trainer), role="log")
    with pytest.raises(SignatureInvalid, match="no valid signature"):
        verify(envelope, payload_type=types.LOG_HEAD, trusted=trust(trainer, log), role="log")


def test_the_key_id_is_only_a_hint() -> None:
    known, stranger = Signer.generate("log"), Signer.generate("log")
    envelope = stranger.sign(types.LOG_HEAD, b"x")
    posing = Signature(keyid=known.public.id, sig=envelope.signatures[0].sig)
    unnamed = Signature(sig=known.sign(types.LOG_HEAD, b"x").signatures[0].sig)
    with pytest.raises(SignatureInvalid):
        verify(
            envelope.model_copy(update={"signatures": (posing,)}),
            payload_type=types.LOG_HEAD, trusted=trust(known), role="log",
        )  # fmt: skip
    both = envelope.model_copy(update={"signatures": (posing, unnamed)})
    assert verify(both, payload_type=types.LOG_HEAD, trusted=trust(known), role="log") == b"x"


def test_a_trusted_key_must_be_the_one_its_id_names() -> None:
    signer, other = Signer.generate("log"), Signer.generate("log")
    swapped = PublicKey(id=other.public.id, role="log", ed25519=signer.public.ed25519)
    envelope = signer.sign(types.LOG_HEAD, b"")
    unnamed = envelope.model_copy(update={"signatures": (Signature(sig=envelope.signatures[0].sig),)})
    with pytest.raises(SignatureInvalid, match="not the key that its id names"):
        verify(unnamed, payload_type=types.LOG_HEAD, trusted={swapped.id: swapped}, role="log")


@pytest.mark.parametrize("text", ["a", "aGk", "aGk=\n", "aGl=", "a Gk=", "=", "aGk==", "+-8="])
def test_base64_has_one_spelling(text: str) -> None:
    envelope = replace(Signer.generate("log").sign(types.LOG_HEAD, b"hi"), payload=text)
    with pytest.raises(SignatureInvalid, match="payload is not valid base64"):
        envelope.body()


def test_an_envelope_without_signatures_is_no_envelope() -> None:
    with pytest.raises(InvalidDocument, match="signatures"):
        Envelope.parse(json.dumps({"payloadType": "x", "payload": "", "signatures": []}))


def test_an_envelope_holds_a_few_signatures() -> None:
    """Else whoever may send one decides how long everybody else waits for it to be checked."""
    parts = {"payloadType": IN_TOTO, "payload": "e30="}
    assert Envelope.build(parts | {"signatures": [{"sig": "AA=="}] * 8})
    with pytest.raises(InvalidDocument):
        Envelope.build(parts | {"signatures": [{"sig": "AA=="}] * 9})


def test_keys_are_kept_in_a_private_file(tmp_path: Path) -> None:
    signer = Signer.generate("router")
    path = tmp_path / "keys" / "router.json"
    signer.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["router.json"]
    assert Signer.load(path).public == signer.public
    assert Signer.load(path).role == "router"


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    first = Signer.generate("log")
    first.save(path)
    with pytest.raises(AlreadyExists):
        Signer.generate("log").save(path)
    assert Signer.load(path).public == first.public
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.json"]


@pytest.mark.parametrize(("mode", "opens"), [(0o600, True), (0o440, True), (0o644, False), (0o602, False)])
def test_a_key_that_everybody_can_open_is_refused(tmp_path: Path, mode: int, *, opens: bool) -> None:
    path = tmp_path / "log.json"
    Signer.generate("log").save(path)
    path.chmod(mode)
    if opens:
        Signer.load(path)
    else:
        with pytest.raises(SigningKeyExposed):
            Signer.load(path)


def test_a_missing_or_damaged_key_file(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyNotFound):
        Signer.load(tmp_path / "none.json")
    damaged = tmp_path / "damaged.json"
    damaged.write_text('{"kind":"tenon.signing-key/v1","role":"log","seed":"' + "5ec2e7" * 10 + '"}')
    damaged.chmod(0o600)
    with pytest.raises(InvalidDocument) as caught:
        Signer.load(damaged)
    assert "5ec2e7" not in str(caught.value)


@pytest.mark.parametrize("role", ["log", "engine"])
def test_a_key_never_shows_itself(role: Literal["log", "engine"]) -> None:
    signer = Signer(role, SEED_A)
    assert repr(signer) == f"Signer({role} {signer.public.id})"
    with pytest.raises(TypeError):
        pickle.dumps(signer)
