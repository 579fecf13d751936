"""Pin a base model: digests of every file that decides its behaviour, and the layers a LoRA may target."""

import re
from pathlib import Path
from typing import Any

from registry import canonical
from registry.digests import Digest
from registry.errors import AdapterTensorsMalformed, BaseInvalid, InvalidDocument
from registry.models import Base
from registry.tensors import TensorInfo, read_header

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers that every supported engine serves LoRA on."""

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.safetensors", re.ASCII)
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


def describe(folder: Path, *, name: str, revision: str) -> Base:
    """The base in ``folder`` (Hugging Face layout). Reads all weights once, to hash them.

    Raises BaseInvalid, saying which file is missing or wrong. Links are followed: that is how the
    Hugging Face cache stores models.
    """
    if not folder.is_dir():
        raise BaseInvalid("the base is not a folder")
    _required(folder, "config.json")
    _required(folder, "tokenizer.json")
    template = _chat_template(folder)
    weights, tensors = _weights(folder)
    return Base(
        name=name,
        revision=revision,
        config=Digest.of_file(folder / "config.json"),
        weights=weights,
        tokenizer=Digest.of_file(folder / "tokenizer.json"),
        chat_template=template,
        modules=_modules(tensors),
    )


def _chat_template(folder: Path) -> Digest:
    """Of the template's text as UTF-8, wherever it is stored: the same template has the same digest."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return Digest.of_file(path)
    template: Any = None
    if (folder / "tokenizer_config.json").is_file():
        template = _json(folder, "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several by name; the one that is used when nobody names one
        named = [item for item in template if isinstance(item, dict) and item.get("name") == "default"]
        template = named[0].get("template") if named else None
    if not isinstance(template, str) or not template:
        raise BaseInvalid(
            "no chat template: neither chat_template.jinja nor chat_template in tokenizer_config.json"
        )
    return Digest.of(template.encode("utf-8", "surrogatepass"))


def _weights(folder: Path) -> tuple[Digest, dict[str, TensorInfo]]:
    if (folder / _WEIGHTS).is_file():
        return Digest.of_file(folder / _WEIGHTS), _header(folder, _WEIGHTS)
    if not (folder / _INDEX).is_file():
        raise BaseInvalid(f"no weights: neither {_WEIGHTS} nor {_INDEX}")
    located = _json(folder, _INDEX).get("weight_map")
    if not isinstance(located, dict) or not located:
        raise BaseInvalid(f"{_INDEX} has no weight_map")
    for file in located.values():
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise BaseInvalid(f"{_INDEX} names a file that cannot be a shard: {ascii(file)[:160]}")
    digests: dict[str, str] = {}
    tensors: dict[str, TensorInfo] = {}
    for file in sorted(set(located.values())):
        _required(folder, file)
        found = _header(folder, file)
        if misplaced := sorted({key for key, place in located.items() if place == file} ^ set(found)):
            raise BaseInvalid(f"{file} and {_INDEX} disagree about {ascii(misplaced[0])[:160]}")
        tensors |= found
        digests[file] = Digest.of_file(folder / file)
    return canonical.digest_of(digests), tensors


def _modules(tensors: dict[str, TensorInfo]) -> dict[str, tuple[int, int]]:
    modules: dict[str, tuple[int, int]] = {}
    for name, info in sorted(tensors.items()):
        module = name.removesuffix(".weight")
        if module == name or module.rpartition(".")[2] not in TARGETS or len(info.shape) != 2:
            continue
        if info.dtype not in _FLOATS:
            raise BaseInvalid(
                f"{ascii(name)[:160]} is {info.dtype}: a packed weight does not show its layer's shape",
                hint="describe the unquantised base that the adapters are trained on",
            )
        modules[module] = (info.shape[0], info.shape[1])
    if not modules:
        raise BaseInvalid(f"no layer that a LoRA may target ({', '.join(TARGETS)})")
    return modules


def _header(folder: Path, file: str) -> dict[str, TensorInfo]:
    try:
        return read_header(folder / file)
    except AdapterTensorsMalformed as error:
        raise BaseInvalid(f"{file} is not a sound safetensors file: {error.message}") from None


def _json(folder: Path, file: str) -> dict[str, Any]:
    try:
        value = canonical.decode((folder / file).read_bytes())
    except InvalidDocument as error:
        raise BaseInvalid(f"{file} is {error.message}") from None
    if not isinstance(value, dict):
        raise BaseInvalid(f"{file} is not a JSON object")
    return value


def _required(folder: Path, file: str) -> None:
    if not (folder / file).is_file():
        raise BaseInvalid(f"the file {file} is missing")
