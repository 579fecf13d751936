"""Which regular expressions a schema's ``pattern`` may hold.

The engine reads them with Rust's regex syntax and the validator after it with Python's ``re``: allowed is
what means the same in both, and what Python matches without exponential time (an answer is model output,
so a pattern like ``(a+)+$`` would let one tenant's policy stop the router).
"""

import re

MAX_PATTERN = 512
MAX_REPEAT = 1_000
"""Of ``{n,m}``, one by one and multiplied where they nest."""
MAX_CHOICES = 16
"""Repetitions of a group that holds alternatives: each round may double the ways to match."""
MAX_VARIABLE = 10
"""Repetitions of no fixed count in one pattern: each multiplies the ways to match."""
_ESCAPES = frozenset("dDwWsSnrtfv.^$*+?()[]{}|\\/-") | frozenset("\"'#&~@!%,:;=_` ")
_COUNT = re.compile(r"\{(\d{1,6})(,(\d{0,6}))?\}", re.ASCII)


def pattern_fault(pattern: str) -> str:
    """Why ``pattern`` is refused; empty when it may be used."""
    if len(pattern) > MAX_PATTERN:
        return f"longer than {MAX_PATTERN} characters"
    try:
        _Scan(pattern).run()
        re.compile(pattern)
    except _Unsupported as error:
        return str(error)
    except (re.error, OverflowError, RecursionError) as error:
        return f"not a regular expression: {error}"
    return ""


class _Unsupported(Exception):
    pass


class _Scan:
    """One pass over a pattern, with a stack of the groups that are open."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._open: list[int] = [1]
        """Per open group, the largest repetition inside it."""
        self._choices: list[bool] = [False]
        """Per open group, whether it holds alternatives."""
        self._variable = 0
        self._atom_choices = False
        self._atom = 0
        """Largest repetition inside the atom just read; 0 when there is nothing to repeat."""

    def run(self) -> None:
        while self._at < len(self._text):
            self._step(self._text[self._at])

    def _step(self, char: str) -> None:
        if char not in "*+?{":
            self._atom_choices = False
        if char == "\\":
            self._escape()
            self._atom = 1
        elif char == "[":
            self._set()
            self._atom = 1
        elif char == "(":
            self._group()
        elif char == ")":
            self._close()
        elif char in "*+?{":
            self._repeat()
        elif char == "|":
            self._choices[-1] = True
            self._at += 1
            self._atom = 0
        elif char in "^$":
            self._anchor(char)
        else:
            self._at += 1
            self._atom = 1

    def _anchor(self, char: str) -> None:
        if self._at != (0 if char == "^" else len(self._text) - 1):
            raise _Unsupported(f"'{char}' is possible only at the {'start' if char == '^' else 'end'}")
        self._at += 1
        self._atom = 0

    def _escape(self) -> None:
        escaped = self._text[self._at + 1 : self._at + 2]
        if escaped not in _ESCAPES:
            raise _Unsupported(
                f"'\\{escaped}' (look-around, back-references and Unicode classes are not enforced)"
            )
        self._at += 2

    def _set(self) -> None:
        end = self._at + 1
        end += self._text[end : end + 1] == "^"
        first = end
        while end < len(self._text) and (self._text[end] != "]" or end == first):
            if self._text[end] == "\\":
                self._at, kept = end, self._at
                self._escape()
                end, self._at = self._at, kept
                continue
            if (
                self._text[end] == "["
                or self._text[end : end + 2] in {"--", "&&", "~~", "||"}
                or (self._text[end] == "]")
            ):
                raise _Unsupported("a set inside a set, or a set operation: escape the character")
            end += 1
        self._at = end + 1

    def _group(self) -> None:
        if self._text.startswith("(?", self._at):
            if not self._text.startswith("(?:", self._at):
                raise _Unsupported("'(?' is possible only as '(?:'")
            self._at += 3
        else:
            self._at += 1
        self._open.append(1)
        self._choices.append(False)
        self._atom = 0

    def _close(self) -> None:
        if len(self._open) == 1:
            raise _Unsupported("a ')' without its '('")
        self._at += 1
        self._atom, self._atom_choices = self._open.pop(), self._choices.pop()
        self._open[-1] = max(self._open[-1], self._atom)

    def _repeat(self) -> None:
        if self._atom == 0:
            raise _Unsupported("a repetition of nothing, or of a repetition")
        char = self._text[self._at]
        if char == "{":
            match = _COUNT.match(self._text, self._at)
            if not match:
                raise _Unsupported("a bare '{': escape it")
            self._at = match.end()
            self._variable += match[2] is not None
            most = int(match[1]) if match[2] is None else int(match[3]) if match[3] else MAX_REPEAT
        else:
            self._at += 1
            self._variable += 1
            most = 1 if char == "?" else MAX_REPEAT
        inside = self._atom * max(most, 1)
        if inside > MAX_REPEAT:
            raise _Unsupported(f"repetitions inside repetitions (more than {MAX_REPEAT} in all)")
        if self._atom_choices and most > MAX_CHOICES:
            raise _Unsupported(f"alternatives repeated more than {MAX_CHOICES} times: use a set such as [ab]")
        if self._variable > MAX_VARIABLE:
            raise _Unsupported(f"more than {MAX_VARIABLE} repetitions of no fixed count")
        self._open[-1] = max(self._open[-1], inside)
        self._at += self._text[self._at : self._at + 1] == "?"  # lazy: the same strings match
        self._atom = 0
