r"""A schema's ``pattern`` as the validator must be given it to mean what the engine meant.

The engine reads ``\d``, ``\w`` and ``\s`` as Rust's regex does, over all of Unicode. The validator follows
ECMA 262 and reads them over ASCII: it would refuse the "é" that ``\w+`` let the engine write.
"""

_DIGIT = r"\p{Nd}"
# Unicode TR 18, Annex C, which Rust's regex follows.
_WORD = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}"
_SPACE = r"\p{White_Space}"
_OUTSIDE = {
    "d": _DIGIT,
    "D": r"\P{Nd}",
    "w": f"[{_WORD}]",
    "W": f"[^{_WORD}]",
    "s": _SPACE,
    "S": r"\P{White_Space}",
}
_INSIDE = _OUTSIDE | {"w": _WORD}


def spelled_out(pattern: str) -> str | None:
    r"""``pattern`` with its classes written as Unicode properties; None for a ``\W`` inside a set, which has
    no such spelling.

    For patterns that ``registry.patterns`` allows.
    """
    written: list[str] = []
    at, in_set = 0, False
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            escaped = pattern[at + 1 : at + 2]
            if in_set and escaped == "W":
                return None
            written.append((_INSIDE if in_set else _OUTSIDE).get(escaped, char + escaped))
            at += 2
            continue
        if char == "[" and not in_set:
            in_set = True
            # A "]" that comes first is a member and not the end.
            first = at + 1 + (pattern[at + 1 : at + 2] == "^")
            opening = pattern[at:first]
            if pattern[first : first + 1] == "]":
                opening, first = opening + "\\]", first + 1
            written.append(opening)
            at = first
            continue
        if char == "]":
            in_set = False
        written.append(char)
        at += 1
    return "".join(written)
