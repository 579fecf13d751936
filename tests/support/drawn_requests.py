"""Requests drawn from an API's description: whatever endpoints it has, now or later.

Values come from a pool wherever the description's names or patterns say what they are, so that a request can
mean something that exists; everything else is made up from the schema.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Pool:
    named: Mapping[str, Sequence[str]]
    """Property or parameter name -> values worth trying."""
    digests: Sequence[str]
    names: Sequence[str]
    documents: Mapping[str, Sequence[Any]]
    """Name of a schema -> whole values, of documents that only a signer could make."""


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    described: Schema = field(repr=False)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def of_tenant(self) -> bool:
        return "{tenant}" in self.path

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(self.described["x-tenon-roles"])


@dataclass(frozen=True)
class Drawn:
    operation: Operation
    parameters: Mapping[str, str]
    """Of the path."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any = None
    raw: bytes | None = None

    @property
    def path(self) -> str:
        path = self.operation.path
        for name, value in self.parameters.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=":"))
        return path

    @property
    def content(self) -> dict[str, Any]:
        if self.raw is not None:
            return {"content": self.raw}
        return {} if self.body is None else {"json": self.body}

    def text(self) -> str:
        """Everything that the caller said."""
        said = [self.path, json.dumps([self.parameters, self.query, self.headers, self.body])]
        return "\n".join([*said, (self.raw or b"").decode("latin-1")])

    def mapped(self, change: Callable[[str], str]) -> "Drawn":
        """The same request with every text changed."""

        def deep(value: Any) -> Any:
            if isinstance(value, str):
                return change(value)
            if isinstance(value, dict):
                return {change(key): deep(item) for key, item in value.items()}
            return [deep(item) for item in value] if isinstance(value, list) else value

        return Drawn(
            self.operation,
            {name: change(value) for name, value in self.parameters.items()},
            {name: change(value) for name, value in self.query.items()},
            {name: change(value) for name, value in self.headers.items()},
            deep(self.body),
            self.raw,
        )


def operations(document: Schema) -> list[Operation]:
    return [
        Operation(method.upper(), path, described)
        for path, methods in sorted(document["paths"].items())
        for method, described in sorted(methods.items())
    ]


@dataclass(frozen=True)
class Requests:
    document: Schema
    pool: Pool
    _made: dict[str, st.SearchStrategy[Any]] = field(default_factory=dict)

    def of(self, operation: Operation, fixed: Mapping[str, str] | None = None) -> st.SearchStrategy[Drawn]:
        """``fixed``: values of path parameters."""
        parts: dict[str, dict[str, st.SearchStrategy[Any]]] = {"path": {}, "query": {}, "header": {}}
        optional: dict[str, dict[str, st.SearchStrategy[Any]]] = {"query": {}, "header": {}}
        for parameter in operation.described.get("parameters", ()):
            name, where = parameter["name"], parameter["in"]
            value = self._value(parameter["schema"], name).map(_text)
            if name == "wait":  # long polling: a test does not want to
                value = st.just("0")
            if where == "path" and fixed and name in fixed:
                value = st.just(fixed[name])
            target = parts[where] if parameter.get("required") else optional[where]
            target[name] = value
        content = operation.described.get("requestBody", {}).get("content", {})
        body: st.SearchStrategy[Any] = st.none()
        raw: st.SearchStrategy[bytes | None] = st.none()
        if "application/json" in content:
            body = self._value(content["application/json"]["schema"], "")
        elif content:
            raw = st.sampled_from([b"", b"{}", *(value.encode() for value in self.pool.names)])
        return st.builds(
            Drawn,
            st.just(operation),
            st.fixed_dictionaries(parts["path"]),
            st.fixed_dictionaries(parts["query"], optional=optional["query"]),
            st.fixed_dictionaries(parts["header"], optional=optional["header"]),
            body,
            raw,
        )

    def _value(self, schema: Schema, name: str) -> st.SearchStrategy[Any]:
        if name in self.pool.named:
            known = st.sampled_from(self.pool.named[name])
            if schema.get("type") == "string" or "anyOf" in schema:
                return known
        if "$ref" in schema:
            return self._referred(schema["$ref"].rsplit("/", 1)[-1])
        if "anyOf" in schema:
            return st.one_of([self._value(each, name) for each in schema["anyOf"]])
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        made: st.SearchStrategy[Any] = self._by_type(schema, name)
        return made

    def _referred(self, model: str) -> st.SearchStrategy[Any]:
        if model in self.pool.documents:
            return st.sampled_from(self.pool.documents[model])
        if model not in self._made:
            self._made[model] = self._value(self.document["components"]["schemas"][model], "")
        return self._made[model]

    def _by_type(self, schema: Schema, name: str) -> st.SearchStrategy[Any]:
        least = schema.get("minimum", 0)
        simple: dict[str, st.SearchStrategy[Any]] = {
            "integer": st.integers(least, min(schema.get("maximum", least + 3), least + 3)),
            "number": st.sampled_from([1.0, 10.0, 50.0]),
            "boolean": st.booleans(),
            "null": st.none(),
        }
        kind = schema["type"]
        if kind in simple:
            return simple[kind]
        made = {"string": self._string, "object": self._object}
        return self._array(schema, name) if kind == "array" else made[kind](schema)

    def _array(self, schema: Schema, name: str) -> st.SearchStrategy[list[Any]]:
        if "prefixItems" in schema:
            return st.tuples(*(self._value(each, name) for each in schema["prefixItems"])).map(list)
        return st.lists(self._value(schema["items"], name), min_size=schema.get("minItems", 0), max_size=3)

    def _string(self, schema: Schema) -> st.SearchStrategy[str]:
        pattern = schema.get("pattern", "")
        if "sha256" in pattern:
            return st.sampled_from(self.pool.digests)
        if pattern and all(re.search(pattern, name) for name in self.pool.names):
            return st.sampled_from(self.pool.names)
        if pattern:
            return st.from_regex(re.compile(pattern), fullmatch=True)
        return st.sampled_from(["x", "2027-01-01T00:00:00Z", *self.pool.names])

    def _object(self, schema: Schema) -> st.SearchStrategy[dict[str, Any]]:
        properties = schema.get("properties", {})
        if not properties:
            values = schema.get("additionalProperties")
            inner = self._value(values, "") if isinstance(values, dict) else st.none()
            keys = st.sampled_from(["adapter_config.json", "adapter_model.safetensors", "x-tier"])
            return st.dictionaries(keys, inner, min_size=schema.get("minProperties", 0), max_size=3)
        required = set(schema.get("required", ()))
        every = {name: self._value(each, name) for name, each in properties.items()}
        return st.fixed_dictionaries(
            {name: value for name, value in every.items() if name in required},
            optional={name: value for name, value in every.items() if name not in required},
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
