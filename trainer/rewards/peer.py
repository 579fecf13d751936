"""Two processes that use each other's objects: tests in one, the answer's code in the other.

Plain data (numbers, text, lists, dicts, sets, Decimal, Fraction) crosses as copies in JSON, so an answer
cannot decide whether its value equals what a test expects. Everything else stays where it was made, and the
other side holds a `Far` that asks. The side with the tests is ``guarded``: it hands out what the tests pass
on and nothing behind it (no frames, no modules, no names with an underscore), and runs nothing that the other
side names.

What remains: an object of the answer's own says itself how it compares with another object of its own,
whether it is true, and what its methods return, so tests should compare data. `f(x) is x` is false of a copy.
A test cannot subclass an answer's class, await its coroutine, see what it prints or use what it imported.
"""

import builtins
import json
import operator
import os
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import ModuleType
from typing import Any, Final

_MUTABLE: Final = (list, dict, set)
_SEQUENCES: Final[dict[str, Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_WRITTEN: Final[dict[str, Any]] = {"bytes": bytes.fromhex, "Decimal": Decimal, "Fraction": Fraction}
_TYPES: Final[dict[str, Any]] = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, object)
}
_ARITHMETIC: Final = (
    "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul",
    "and", "or", "xor", "lshift", "rshift",
)  # fmt: skip
_ORDER: Final = ("lt", "le", "gt", "ge")


class _NoPlain(TypeError):
    """The object has no plain form."""


def plain(value: Any) -> Any:
    """What a subclass of plain data holds, read past its own methods."""
    for kind in _SEQUENCES.values():
        if isinstance(value, kind):
            return kind(kind.__iter__(value))
    if isinstance(value, dict):
        return dict(dict.items(value))
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__add__(value, 0)
    if isinstance(value, float):
        return float.__add__(value, 0.0)
    raise _NoPlain(f"{type(value).__name__} is not plain data")


def _call(function: Callable[..., Any], *args: Any, **named: Any) -> Any:
    return function(*args, **named)


_ASKED: Final[dict[str, Callable[..., Any]]] = {
    **{name: getattr(operator, f"__{name}__") for name in (*_ARITHMETIC, *_ORDER)},
    **{name: getattr(operator, name) for name in ("eq", "contains", "getitem", "setitem", "delitem")},
    **{name: getattr(operator, name) for name in ("neg", "pos", "invert", "index")},
    **{
        name: getattr(builtins, name)
        for name in (
            "len", "iter", "next", "reversed", "str", "repr", "bool", "hash", "int", "float", "abs", "round",
            "isinstance", "issubclass", "getattr", "setattr", "delattr", "dir",
        )
    },
    "call": _call,
    "plain": plain,
    "enter": lambda value: type(value).__enter__(value),
    "exit": lambda value, *told: type(value).__exit__(value, None, *told),
}  # fmt: skip


def _asks(name: str) -> Callable[..., Any]:
    def ask(self: "Far", *args: Any, **named: Any) -> Any:
        return self._far_peer.ask(name, self, *args, **named)

    return ask


def _arithmetic(name: str, *, reflected: bool = False) -> Callable[..., Any]:
    def ask(self: "Far", other: Any) -> Any:
        found = self._far_peer.ask(name, other, self) if reflected else self._far_peer.ask(name, self, other)
        if not isinstance(found, Far) and not isinstance(other, Far):
            # It has seen the test's number: `abs(got - 3) < 0.1` would be its own verdict.
            raise TypeError(f"{name} of an answer's own object and plain data may not give plain data")
        return found

    return ask


def _order(name: str) -> Callable[..., Any]:
    def ask(self: "Far", other: Any) -> Any:
        if isinstance(other, Far):
            return self._far_peer.ask(name, self, other)
        return _ASKED[name](self._far_peer.ask("plain", self), other)

    return ask


class Far:
    """An object of the other side."""

    _far_peer: "Peer"
    _far_ref: int

    def __init__(self, peer: "Peer", ref: int) -> None:
        object.__setattr__(self, "_far_peer", peer)
        object.__setattr__(self, "_far_ref", ref)

    __call__ = _asks("call")
    __getattr__ = _asks("getattr")
    __setattr__ = _asks("setattr")
    __delattr__ = _asks("delattr")
    __hash__ = _asks("hash")
    __enter__ = _asks("enter")
    for _name in (
        "len", "iter", "next", "reversed", "str", "repr", "bool", "int", "float", "abs", "round",
        "neg", "pos", "invert", "index", "getitem", "setitem", "delitem", "dir",
    ):  # fmt: skip
        vars()[f"__{_name}__"] = _asks(_name)
    for _name in _ORDER:
        vars()[f"__{_name}__"] = _order(_name)
    for _name in _ARITHMETIC:
        vars()[f"__{_name}__"] = _arithmetic(_name)
        vars()[f"__r{_name}__"] = _arithmetic(_name, reflected=True)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Far):
            return bool(self._far_peer.ask("eq", self, other))
        try:
            return bool(self._far_peer.ask("plain", self) == other)
        except TypeError:
            return False

    def __contains__(self, value: object) -> bool:
        try:
            return value in self._far_peer.ask("plain", self)
        except TypeError:
            return bool(self._far_peer.ask("contains", self, value))

    def __exit__(self, _kind: object, *told: object) -> None:
        self._far_peer.ask("exit", self, None, None)

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Far) and bool(self._far_peer.ask("isinstance", value, self))

    def __subclasscheck__(self, value: type) -> bool:
        return isinstance(value, Far) and bool(self._far_peer.ask("issubclass", value, self))


class Peer:
    def __init__(self, read: int, write: int, *, guarded: bool) -> None:
        self._in, self._out = os.fdopen(read, "rb"), os.fdopen(write, "wb")
        self._guarded = guarded
        self._kept: list[Any] = []
        self._places: dict[int, int] = {}
        self._far: dict[int, Far] = {}
        self._errors: dict[int, type[BaseException]] = {}

    def send(self, message: object) -> None:
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.flush()

    def receive(self) -> Any:
        line = self._in.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the other side has left")
        return json.loads(line)

    def serve(self) -> None:
        while True:
            self._reply(self.receive())

    def ask(self, name: str, *args: Any, **named: Any) -> Any:
        told = {key: self.pack(value) for key, value in named.items()}
        self.send({"ask": name, "args": [self.pack(value) for value in args], "named": told})
        while "ask" in (message := self.receive()):
            self._reply(message)
        for mine, packed in zip(args, message["after"], strict=True):
            if packed is not None:
                _become(mine, self.unpack(packed))
        if "raised" in message:
            raise self._error(message["raised"])
        return self.unpack(message["value"])

    def _reply(self, message: Any) -> None:
        args: list[Any] = []
        reply: dict[str, Any]
        try:
            args = [self.unpack(packed) for packed in message["args"]]
            named = {key: self.unpack(packed) for key, packed in message["named"].items()}
            if self._guarded:
                _guard(message["ask"], args)
            reply = {"value": self.pack(_ASKED[message["ask"]](*args, **named))}
        except EOFError:
            raise
        except BaseException as error:  # the answer's code may raise anything
            reply = {"raised": self._pack_error(error)}
        reply["after"] = [self.pack(value) if type(value) in _MUTABLE else None for value in args]
        self.send(reply)

    def pack(self, value: Any) -> Any:  # noqa: PLR0911 - one per kind of data
        kind: Any = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind.__name__ in _SEQUENCES and kind is _SEQUENCES[kind.__name__]:
            return {"kind": kind.__name__, "value": [self.pack(item) for item in value]}
        if kind is dict:
            pairs = [[self.pack(key), self.pack(held)] for key, held in value.items()]
            return {"kind": "dict", "value": pairs}
        if kind in (bytes, Decimal, Fraction):
            return {"kind": kind.__name__, "value": value.hex() if kind is bytes else str(value)}
        if kind is complex:
            return {"kind": "complex", "value": [value.real, value.imag]}
        if kind is Far:
            return {"kind": "yours", "value": value._far_ref}
        return self._pack_type(value) if isinstance(value, type) else self._lend(value)

    def _pack_type(self, value: type) -> Any:
        for ref, error in self._errors.items():
            if error is value:
                return {"kind": "yours", "value": ref}
        if _TYPES.get(value.__name__) is value:
            return {"kind": "type", "value": value.__name__}
        if issubclass(value, BaseException):
            return {"kind": "error", "value": self._pack_error_type(value)}
        return self._lend(value)

    def _lend(self, value: Any) -> Any:
        if self._guarded:
            if isinstance(value, ModuleType):
                raise TypeError("a test cannot pass a module to the answer")
            if named := _named(value):  # looked up over there: calling it must not run it here
                return {"kind": "named", "value": named}
        return {"kind": "mine", "value": self._keep(value)}

    def unpack(self, packed: Any) -> Any:  # noqa: PLR0911
        if not isinstance(packed, dict):
            return packed
        kind, value = packed["kind"], packed["value"]
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](self.unpack(item) for item in value)
        if kind == "dict":
            return {self.unpack(key): self.unpack(held) for key, held in value}
        if kind in _WRITTEN:
            return _WRITTEN[kind](value)
        if kind == "complex":
            return complex(*value)
        if kind == "type":
            return _TYPES[value]
        if kind == "error":
            return self._error_type(value)
        if kind == "yours":
            return self._kept[value]
        if kind == "named" and not self._guarded:
            return operator.attrgetter(value[1])(__import__(value[0], fromlist=["*"]))
        if kind == "mine":
            return self._far.setdefault(value, Far(self, value))
        raise TypeError(f"{kind} is not taken here")

    def _keep(self, value: Any) -> int:
        place = self._places.setdefault(id(value), len(self._kept))
        if place == len(self._kept):
            self._kept.append(value)
        return place

    def _pack_error_type(self, kind: type[BaseException]) -> dict[str, Any]:
        bases = [base.__name__ for base in kind.__mro__ if getattr(builtins, base.__name__, None) is base]
        ref = None if bases[0] == kind.__name__ else self._keep(kind)
        return {"name": kind.__name__, "base": bases[0], "ref": ref}

    def _pack_error(self, error: BaseException) -> dict[str, Any]:
        try:
            told = [self.pack(value) for value in error.args]
            held = {key: self.pack(value) for key, value in vars(error).items()}
        except Exception:
            told, held = [], {}
        return {"type": self._pack_error_type(type(error)), "args": told, "held": held}

    def _error_type(self, packed: Any) -> type[BaseException]:
        base = getattr(builtins, packed["base"])
        if not (isinstance(base, type) and issubclass(base, BaseException)):
            raise TypeError("what was raised is no exception")
        if packed["ref"] is None:
            return base
        return self._errors.setdefault(packed["ref"], type(packed["name"], (base,), {}))

    def _error(self, packed: Any) -> BaseException:
        kind = self._error_type(packed["type"])
        try:
            error = kind(*[self.unpack(value) for value in packed["args"]])
        except TypeError:
            error = kind.__new__(kind)
        vars(error).update({key: self.unpack(value) for key, value in packed["held"].items()})
        return error


def _become(mine: Any, after: Any) -> None:
    """A list that was sorted in place over there is sorted here."""
    if type(mine) is not type(after) or mine == after:
        return
    mine.clear()
    mine.extend(after) if isinstance(mine, list) else mine.update(after)


def _guard(name: str, args: list[Any]) -> None:
    if name not in ("getattr", "setattr", "delattr", "dir"):
        return
    held = args[0]
    open_to = type(held).__module__ == "tests" and (name == "getattr" or not isinstance(held, type))
    if not open_to or (len(args) > 1 and (not isinstance(args[1], str) or args[1].startswith("_"))):
        raise AttributeError("the tests keep this to themselves")


def _named(value: Any) -> tuple[str, str] | None:
    """Where the standard library has it."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module in sys.stdlib_module_names and isinstance(name, str) and "<" not in name:
        try:
            if operator.attrgetter(name)(sys.modules[module]) is value:
                return module, name
        except (AttributeError, KeyError):
            return None
    return None
