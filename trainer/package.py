"""From what PEFT saved to the two files a version consists of, the same bytes for the same training.

PEFT writes ``target_modules`` in the order of a hash set, the base as a path of this machine, the weights
with mode 0600 (an engine under another user cannot read them) and a README. None of that may enter a digest.
"""

import json
from pathlib import Path
from typing import Any, Final

from registry import canonical
from registry.digests import Digest
from registry.errors import AdapterConfigInvalid, AdapterFileMissing
from registry.intake import CONFIG, WEIGHTS
from registry.tensors import read_header

_MODE: Final = 0o644


def package(saved: Path, out: Path, *, base: Digest, base_name: str) -> tuple[Path, ...]:
    """Write a clean adapter of ``saved`` to ``out`` (made, must hold nothing else); its files, sorted.

    Raises AdapterFileMissing and what reading damaged files raises. Everything else in ``saved``
    (``training_args.bin`` is a pickle) stays behind.
    """
    for name in (CONFIG, WEIGHTS):
        if not (saved / name).is_file():
            raise AdapterFileMissing(f"training left no {name}", file=name)
    out.mkdir(parents=True, exist_ok=True)
    contents = {
        CONFIG: _config(canonical.decode((saved / CONFIG).read_bytes()), base=base, base_name=base_name),
        WEIGHTS: _weights(saved / WEIGHTS),
    }
    paths = []
    for name, data in sorted(contents.items()):
        path = out / name
        path.write_bytes(data)
        path.chmod(_MODE)
        paths.append(path)
    return tuple(paths)


def _config(config: Any, *, base: Digest, base_name: str) -> bytes:
    if not isinstance(config, dict):
        raise AdapterConfigInvalid(f"{CONFIG} is not a JSON object")
    # Unset and empty settings say nothing, and which of them PEFT writes changes with its version.
    kept = {key: value for key, value in config.items() if value not in (None, {}, [])}
    targets = kept.get("target_modules")
    if isinstance(targets, list):
        kept["target_modules"] = sorted(targets)
    kept["base_model_name_or_path"] = base_name
    kept["tenon_base"] = base  # intake compares it: a path is no identity
    kept["inference_mode"] = True
    for local in ("revision", "auto_mapping", "peft_version"):
        kept.pop(local, None)
    return json.dumps(kept, indent=2, sort_keys=True).encode() + b"\n"


def _weights(path: Path) -> bytes:
    """The tensors again, in the order of their names, behind a header with nothing else in it."""
    data = path.read_bytes()
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    pieces: list[bytes] = []
    offset = 0
    # Wide types first, as safetensors itself does: every tensor then starts at a multiple of its element.
    infos = sorted(read_header(path).values(), key=lambda info: (-_width(info.dtype), info.name))
    for info in infos:
        piece = data[info.begin : info.end]
        header[info.name] = {
            "dtype": info.dtype,
            "shape": list(info.shape),
            "data_offsets": [offset, offset + len(piece)],
        }
        offset += len(piece)
        pieces.append(piece)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(pieces)


def _width(dtype: str) -> int:
    digits = "".join(char for char in dtype if char.isdigit())
    return int(digits) if digits else 8
