"""Random bytes from pages: none comes twice, and none is left out of what was asked for."""

from router.entropy import Entropy


def test_no_byte_is_given_twice() -> None:
    pages: list[bytes] = []

    def source(count: int) -> bytes:
        pages.append(b"".join((len(pages) << 12 | at).to_bytes(4, "big") for at in range(count // 4)))
        return pages[-1]

    entropy = Entropy(source)
    given = [entropy(16) for _ in range(256)]
    assert b"".join(given) == pages[0]
    assert len(pages) == 1
    assert entropy(16) == pages[1][:16]


def test_what_is_left_of_a_page_is_never_stretched() -> None:
    entropy = Entropy(bytes)
    assert [len(entropy(count)) for count in (16, 4090, 5000, 1)] == [16, 4090, 5000, 1]
