r"""What a pattern costs the validator, known before it is compiled.

A short text asks for much: ``\w{100}`` is 6.5 MB of automata and 25 ms in which nothing else runs.
Microseconds, measured with jsonschema-rs 0.60 on a 2 GHz core; memory goes with them, 260 bytes for each.
"""

import re

BYTES = 260
"""Of memory, for a microsecond of work."""
_WHOLE = 100.0
_WORD = 260.0
"""``\\w`` is 750 ranges of Unicode."""
_DIGIT = 25.0
_WIDE = 7.0
"""``.``, white space, and what is not in a set."""
_ATOM = 1.0
_CLASSES = {"w": _WORD, "W": _WORD, "d": _DIGIT, "D": _DIGIT, "s": _WIDE, "S": _WIDE}
_TOKEN = re.compile(
    r"\\(?P<escape>.)"
    r"|\[(?P<set>\^?\]?(?:\\.|[^\]\\])*)\]"
    r"|(?P<open>\((?:\?:)?)"
    r"|(?P<close>\))"
    r"|\{(?P<least>\d+)(?P<more>,(?P<most>\d*))?\}\??"
    r"|(?P<loop>[*+?]\??)"
    r"|(?P<other>.)",
    re.DOTALL,
)


def pattern_work(pattern: str) -> int:
    """Microseconds, for a pattern that ``registry.patterns`` allows."""
    groups = [0.0]
    atom = 0.0
    """Of the last atom, which a repetition that follows it repeats; already in its group's sum."""
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup
        if kind == "open":
            groups.append(0.0)
            continue
        if kind == "close" and len(groups) > 1:
            atom = groups.pop()
        elif kind in ("least", "more", "most"):
            groups[-1] += atom * (_times(token) - 1)
            continue
        elif kind == "loop":
            groups[-1] += atom if token[0][0] != "?" else 0.0
            continue
        else:
            atom = _atom(kind or "", token)
        groups[-1] += atom
    return int(_WHOLE + sum(groups))


def _times(token: re.Match[str]) -> int:
    least = int(token["least"])
    return max(int(token["most"]) if token["most"] else least + (token["more"] is not None), 1)


def _atom(kind: str, token: re.Match[str]) -> float:
    if kind == "escape":
        return _CLASSES.get(token["escape"], _ATOM)
    if kind == "set":
        members = token["set"]
        classes = [_CLASSES.get(name, _ATOM) for name in re.findall(r"\\(.)", members, re.DOTALL)]
        wide = _WIDE if members.startswith("^") or not members.isascii() else _ATOM
        return max(classes, default=0.0) + wide + len(members.encode("utf-8", "replace")) / 10
    return _WIDE if token[0] == "." or not token[0].isascii() else _ATOM
