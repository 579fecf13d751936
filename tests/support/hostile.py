"""Every parser of bytes from outside, as something that a fuzzer can throw bytes at.

Each target returns or raises a TenonError; anything else is a finding. ``tests/property/registry`` drives
them with hypothesis in every run, ``python -m tests.fuzz`` with atheris for as long as one likes.
"""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from registry import adapter_config, canonical, policies
from registry.archives import unpacked
from registry.digests import Digest
from registry.errors import TenonError
from registry.manifests import Manifest
from registry.models import Routing
from registry.names import AdapterName, Ref, parse_name
from registry.patterns import pattern_fault
from registry.routing.prove import Known, prove
from registry.signing import types
from registry.signing.envelope import Envelope, verify
from registry.signing.keys import Signer
from registry.tensors import read_header, read_tensor
from server.assembly.rules import read_rules

_SIGNER = Signer("trainer", b"a trainer of the tests".ljust(32, b"."))
_TRUSTED = {_SIGNER.public.id: _SIGNER.public}


def safetensors(data: bytes, file: Path) -> None:
    file.write_bytes(data)
    for info in read_header(file).values():
        read_tensor(file, info)


def archive(data: bytes, file: Path) -> None:
    file.write_bytes(data)
    with unpacked(file) as folder:
        assert len(list(folder.iterdir())) <= 64


def config(data: bytes, file: Path) -> None:
    parsed = adapter_config.parse(data, max_rank=64)
    assert 1 <= parsed.max_rank <= 64


def json(data: bytes, file: Path) -> None:
    value = canonical.decode(data)
    once = canonical.encode(value)
    assert canonical.encode(canonical.decode(once)) == once


def manifest(data: bytes, file: Path) -> None:
    parsed = Manifest.parse(data)
    assert Manifest.parse(parsed.canonical()) == parsed
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", ref.path) for ref in parsed.files)


def envelope(data: bytes, file: Path) -> None:
    parsed = Envelope.parse(data)
    verify(parsed, payload_type=types.REPORT, trusted=_TRUSTED, role="trainer")
    raise AssertionError("nobody but the signer can make a valid signature")


def names(data: bytes, file: Path) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for parse in (Ref.parse, AdapterName.parse, parse_name, Digest):
        try:
            parsed = str(parse(text))
        except TenonError:
            continue
        assert parsed in (text, f"{text}:live")
        assert re.fullmatch(r"[a-z0-9_/:@-]{1,300}", parsed)


def schema(data: bytes, file: Path) -> None:
    text = data.decode("utf-8", "surrogateescape")
    if not pattern_fault(text):
        re.compile(text)
    policies.lint_text(text)


def rules(data: bytes, file: Path) -> None:
    file.write_bytes(data)
    read_rules(file, "bank_a")


def routing(data: bytes, file: Path) -> None:
    prove([Routing.parse(data)], Known(tenants=frozenset({"bank_a"})))


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    target.__name__: target
    for target in (
        safetensors, archive, config, json, manifest, envelope, names, schema, rules, routing,
    )
}  # fmt: skip


def throw(name: str, data: bytes, folder: Path | None = None) -> bool:
    """Whether the bytes were accepted; raises what is no TenonError."""
    file = (folder or Path(tempfile.gettempdir())) / f"hostile-{name}"
    refusal: TenonError | None = None
    try:
        TARGETS[name](data, file)
    except TenonError as error:
        refusal = error
    if refusal is None:
        return True
    assert refusal.status < 500
    assert len(refusal.message) < 5000
    return False
