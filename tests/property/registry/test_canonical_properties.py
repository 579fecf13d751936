import json
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import canonical
from registry.errors import InvalidDocument

integers = st.integers(min_value=-(2**53) + 1, max_value=2**53 - 1)
texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]))
# RFC 8785 writes a whole float below 1e21 like an integer; from 2**53 on that integer has no canonical form.
floats = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not 2**53 <= abs(x) < 1e21)
values = st.recursive(
    st.none() | st.booleans() | integers | floats | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=25,
)
ascii_values = st.recursive(
    st.none()
    | st.booleans()
    | integers
    | st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(alphabet="abcXYZ_ 019", max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)


def shuffled(value: Any, source: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(inner, source)) for key, inner in value.items()]
        source.shuffle(items)
        return dict(items)
    return [shuffled(inner, source) for inner in value] if isinstance(value, list) else value


@given(values)
def test_decode_undoes_encode(value: Any) -> None:
    assert canonical.decode(canonical.encode(value)) == value


@given(values)
def test_canonical_bytes_are_a_fixed_point(value: Any) -> None:
    data = canonical.encode(value)
    assert canonical.encode(canonical.decode(data)) == data


@given(values, st.randoms(use_true_random=False))
def test_the_order_of_keys_and_the_spelling_do_not_matter(value: Any, source: random.Random) -> None:
    spelled = json.dumps(
        shuffled(value, source), indent=source.choice([None, 2]), ensure_ascii=source.random() < 0.5
    )
    assert canonical.encode(canonical.decode(spelled)) == canonical.encode(value)


@given(ascii_values)
def test_without_floats_and_beyond_ascii_it_is_compact_sorted_json(value: Any) -> None:
    """An independent encoder agrees where its rules coincide with RFC 8785."""
    expected = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical.encode(value) == expected.encode()


@given(values, values)
def test_two_values_share_their_bytes_only_when_equal(one: Any, other: Any) -> None:
    if canonical.encode(one) == canonical.encode(other):
        assert one == other


@given(st.binary() | st.text().map(str.encode) | values.map(lambda value: json.dumps(value).encode()[:-1]))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with suppress(InvalidDocument):
        canonical.decode(data)


@given(st.dictionaries(texts, values, min_size=1, max_size=4), st.integers(min_value=0))
def test_a_key_that_comes_twice_is_refused(value: dict[str, Any], which: int) -> None:
    key = sorted(value)[which % len(value)]
    text = json.dumps(value)[:-1] + f",{json.dumps(key)}:null}}"
    with pytest.raises(InvalidDocument, match="twice"):
        canonical.decode(text)
