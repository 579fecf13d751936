"""YAML as data with line numbers: JSON types only, no tags, no anchors, no key twice.

PyYAML's own loaders are not used for values: YAML 1.1 reads ``no`` as false, ``1:30`` as 90 and ``2e-3`` as
text. Plain scalars follow YAML 1.2's core rules instead.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import yaml

KeyPath: TypeAlias = tuple[str | int, ...]

_MAX_DEPTH: Final = 64
"""PyYAML takes quadratic time for what is open at once: 100 seconds for 100,000 brackets."""
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,300}", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?", re.ASCII)
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(slots=True)
class Parsed:
    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """Where each key or item starts, from 1."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """(line, what)."""


def parse(text: str) -> Parsed:
    """One YAML document. Faults are collected, not raised; ``value`` is usable only when there are none."""
    parsed = Parsed()
    try:
        _refuse_tricks(text, parsed)
        if not parsed.faults:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            if node is not None:
                parsed.value = _read(node, (), parsed)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parsed.faults.append((1 if mark is None else mark.line + 1, error.problem or "not YAML"))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        parsed.faults.append((line, f"a character that YAML does not allow: {error.reason}"))
    except RecursionError:
        parsed.faults.append((1, "nested too deeply"))
    return parsed


def _refuse_tricks(text: str, parsed: Parsed) -> None:
    documents = depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        assert event.start_mark is not None  # only events made by hand have none
        line = event.start_mark.line + 1
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            parsed.faults.append((line, "nested too deeply"))
            return
        if isinstance(event, yaml.DocumentStartEvent) and documents == 2:
            parsed.faults.append((line, "a second document; write one recipe a file"))
        if (tag := getattr(event, "tag", None)) is not None:
            parsed.faults.append((line, f"tags are not allowed ({tag})"))
        if (anchor := getattr(event, "anchor", None)) is not None:
            parsed.faults.append((line, f"anchors and aliases are not allowed ({anchor})"))


def _read(node: yaml.Node, path: KeyPath, parsed: Parsed) -> Any:
    parsed.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _read_mapping(node, path, parsed)
    if isinstance(node, yaml.SequenceNode):
        return [_read(item, (*path, index), parsed) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    return scalar(node.value) if node.style is None else node.value  # quoted text stays text


def _read_mapping(node: yaml.MappingNode, path: KeyPath, parsed: Parsed) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            parsed.faults.append((line, "a key must be text"))
            continue
        key = key_node.value
        here = (*path, key)
        if key in result:
            first = parsed.lines[here]
            parsed.faults.append((line, f"{dotted(here)}: written twice, first on line {first}"))
            continue
        parsed.lines[here] = line
        result[key] = _read(value_node, here, parsed)
    return result


def scalar(text: str) -> Any:
    """A plain (unquoted) scalar by the rules of YAML 1.2's core schema, as a JSON value."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def dotted(path: KeyPath) -> str:
    """``gate.rules[0].metric``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
