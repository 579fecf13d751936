import re
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from registry.digests import Digest
from registry.errors import InvalidDigest, InvalidName, InvalidRef
from registry.names import PATTERN, AdapterName, Ref, engine_name, parse_name

names = st.from_regex(PATTERN[1:-1], fullmatch=True).filter(str.isascii)
digests = st.binary(max_size=40).map(Digest.of)
adapters = st.builds(AdapterName, names, names)
refs = st.one_of(
    st.builds(lambda name, alias: Ref(name, alias=alias), adapters, names),
    st.builds(lambda name, version: Ref(name, version=version), adapters, digests),
)
nearly = st.text(alphabet="ab0_-/:@. \n\x00é٣sha256", max_size=90)


@given(refs)
def test_a_ref_reads_back_as_itself(ref: Ref) -> None:
    assert Ref.parse(str(ref)) == ref


@given(st.one_of(nearly, st.text()))
def test_any_text_is_a_ref_with_one_spelling_or_refused(text: str) -> None:
    try:
        ref = Ref.parse(text)
    except InvalidRef:
        return
    assert str(ref) in (text, f"{text}:live")
    assert (ref.alias is None) != (ref.version is None)


@given(refs, st.text(alphabet="/:@. \n\x00A", min_size=1, max_size=3), st.integers(min_value=0))
def test_a_foreign_character_anywhere_never_reads_as_the_same_ref(ref: Ref, noise: str, place: int) -> None:
    text = str(ref)
    at = place % (len(text) + 1)
    with suppress(InvalidRef):
        assert Ref.parse(text[:at] + noise + text[at:]) != ref


@given(st.one_of(nearly, st.text()))
def test_names_never_hold_what_paths_headers_or_metrics_give_a_meaning(text: str) -> None:
    try:
        name = parse_name(text)
    except InvalidName:
        return
    assert re.fullmatch(r"[a-z0-9_-]{1,63}", name)


@given(st.one_of(st.text(), st.from_regex(r"sha256:[0-9a-fA-F]{63,65}\n?", fullmatch=True)))
def test_a_digest_is_64_lower_case_hex_digits_or_refused(text: str) -> None:
    well_formed = len(text) == 71 and text.startswith("sha256:") and set(text[7:]) <= set("0123456789abcdef")
    try:
        assert Digest(text) == text
        assert well_formed
    except InvalidDigest:
        assert not well_formed


@given(st.binary(), st.binary())
def test_digests_and_engine_names_differ_when_the_bytes_do(one: bytes, other: bytes) -> None:
    assert (Digest.of(one) == Digest.of(other)) is (one == other)
    assert (engine_name(Digest.of(one)) == engine_name(Digest.of(other))) is (one == other)
