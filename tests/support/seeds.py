"""One sound input of every kind, to be spoilt by fuzzers."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from registry.digests import Digest
from registry.manifests import BlobRef, LoraShape, Manifest, Provenance
from registry.models import DeclaredHeader, Route, Routing
from registry.signing import types
from registry.signing.keys import Signer
from tests.support.adapters import tiny_base, write_adapter

DIGEST = Digest.of(b"seed")
_FILES = {"adapter_config.json": b'{"r": 4}', "adapter_model.safetensors": bytes(600)}


def of(name: str) -> Sequence[bytes]:
    return _SEEDS[name]()


def _adapter(file: str) -> bytes:
    with TemporaryDirectory() as made:
        folder = write_adapter(Path(made), tiny_base()[0], rank=1)
        return (folder / file).read_bytes()


def _safetensors() -> list[bytes]:
    header = b'{"a":{"dtype":"F16","shape":[2,1],"data_offsets":[0,4]},"__metadata__":{"format":"pt"}}'
    return [len(header).to_bytes(8, "little") + header + b"1234", _adapter("adapter_model.safetensors")]


def _archives() -> list[bytes]:
    out = []
    for style in (tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=style) as tar:
            for name, data in _FILES.items():
                info = tarfile.TarInfo(f"top/{name}")
                info.size, info.mtime = len(data), 1.5
                tar.addfile(info, io.BytesIO(data))
        out.append(packed.getvalue())
    out.append(gzip.compress(out[0], mtime=0))
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", method) as archive:
            for name, data in _FILES.items():
                archive.writestr(zipfile.ZipInfo(name), data, method)
        out.append(packed.getvalue())
    return out


def _manifest() -> list[bytes]:
    blob = BlobRef(path="adapter_config.json", digest=DIGEST, size=8)
    made = Manifest(
        tenant="bank_a",
        adapter="assistant",
        base=DIGEST,
        lora=LoraShape(rank=4, alpha=8.0, targets=("q_proj",)),
        files=(blob,),
        contract=blob,
        provenance=Provenance(method="upload", environment={"peft": "0.21.2"}),
    )
    return [made.canonical()]


def _envelope() -> list[bytes]:
    stranger = Signer("trainer", b"a stranger".ljust(32, b"."))
    return [stranger.sign(types.REPORT, b"{}").canonical()]


def _routing() -> list[bytes]:
    when: tuple[dict[str, str], ...] = ({}, {"x-a": "1"}, {"x-a": "1", "x-b": "2"}, {"x-b": "2"})
    routes = tuple(
        Route(tenant="bank_a", name=f"r{at}", model="m", when=each, adapter="a", policy=DIGEST)
        for at, each in enumerate(when)
    )
    headers = (
        DeclaredHeader(name="x-a", values=("1", "2"), required=True),
        DeclaredHeader(name="x-b", values=("2",)),
    )
    return [Routing(tenant="bank_a", revision=1, headers=headers, routes=routes).canonical()]


def _rules() -> list[bytes]:
    rule = f"{{name: a, model: m, when: {{x-a: '1'}}, adapter: a, policy: '{DIGEST}'}}"
    return [
        f"- {rule}\n".encode(),
        f"headers:\n  x-a: {{values: ['1'], required: true}}\nroutes:\n  - {rule}\n".encode(),
    ]


def _schema() -> list[bytes]:
    parts = {"a": {"type": "string", "pattern": "^[A-Z]{2}\\d+$"}, "b": {"$ref": "#/$defs/c"}}
    made = {"type": "object", "properties": parts, "$defs": {"c": {"anyOf": [{"const": 1}]}}}
    return [json.dumps(made).encode(), b"^(?:EUR|USD) \\d+(\\.\\d{2})?$"]


_SEEDS = {
    "safetensors": _safetensors,
    "archive": _archives,
    "config": lambda: [_adapter("adapter_config.json")],
    "json": lambda: [b'{"a":[1,2.5,"\\u00e9",null,true,-0.0,1e-7]}', b'"\\ud800"', b"1e999"],
    "manifest": _manifest,
    "envelope": _envelope,
    "names": lambda: [b"bank_a/assistant:live", f"bank_a/assistant@{DIGEST}".encode(), str(DIGEST).encode()],
    "schema": _schema,
    "rules": _rules,
    "routing": _routing,
}
