import pytest

from registry.digests import Digest
from registry.keys import key_id, mint, opens
from registry.models import Key, Quota, Role, Tenant


def _key(secret: str, *, revoked: bool = False) -> Key:
    shown = key_id(secret)
    assert shown is not None
    return Key(
        id=shown,
        tenant="bank_a",
        role=Role.INFERENCE,
        secret_hash=Digest.of(secret.encode()),
        revoked=revoked,
    )


def test_a_minted_secret_shows_its_id_and_holds_all_the_entropy() -> None:
    identity, secret = mint(lambda size: bytes(range(size)))
    assert secret == "tn_0001020304050607_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert key_id(secret) == identity == "0001020304050607"


def test_only_the_very_secret_opens_a_key_and_only_while_it_counts() -> None:
    _, secret = mint(lambda size: b"\x07" * size)
    _, other = mint(lambda size: b"\x08" * size)
    assert opens(secret, _key(secret))
    assert not opens(other, _key(secret))
    assert not opens(secret, _key(secret, revoked=True))
    assert not opens(secret + "\ud800", _key(secret))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tn_0001020304050607_short",
        "TN_0001020304050607_" + "A" * 43,
        "tn_000102030405060G_" + "A" * 43,
        "tn_0001020304050607_" + "A" * 44,
        "tn_0001020304050607_" + "A" * 42 + "=",
        "tn_0001020304050607_" + "A" * 43 + "\n",
        "tn_٠٠٠١٠٢٠٣٠٤٠٥٠٦٠٧_" + "A" * 43,
    ],
)
def test_text_that_cannot_be_a_key_has_no_id(text: str) -> None:
    assert key_id(text) is None


def test_documents_without_the_newer_limits_keep_their_bytes() -> None:
    """What the log and digests hold of keys and tenants from before keys had quotas and tenants weights."""
    key = Key(id="a1", tenant="bank_a", role=Role.INFERENCE, secret_hash=Digest.of(b"secret"))
    tenant = Tenant(id="bank_a", display_name="Bank")
    assert b"quota" not in key.canonical()
    assert tenant.canonical() == (
        b'{"display_name":"Bank","id":"bank_a","quota":{"concurrent_requests":null,'
        b'"requests_per_minute":null,"tokens_per_day":null,"tokens_per_minute":null},"suspended":false}'
    )
    for document in (
        key.model_copy(update={"quota": Quota(requests_per_minute=1)}),
        tenant.model_copy(update={"quota": Quota(weight=3)}),
    ):
        assert type(document).parse(document.canonical()) == document
