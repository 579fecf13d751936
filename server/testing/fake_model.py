"""A "model" without weights: everything follows from the digest of the adapter's bytes. Pure.

Two adapters differ as soon as one byte of them differs, the base is the adapter None, and references
computed here equal what the fake engine answers, exactly: so the real agent can attest the fake engine.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from registry.canonical import digest_of
from registry.contract import Contract, GoldenConversation
from registry.digests import Digest
from registry.errors import AdapterTensorsMalformed
from registry.fingerprint import TOP_REFERENCE, Fingerprint, Probe, TopLogprobs, distance
from registry.models import Base
from registry.tensors import read_header, read_tensor
from server.testing.pattern_text import shortest_match

VOCABULARY: Final = 260
"""256 bytes and the marks below."""
_START, _END, _TURN = 256, 257, 258
_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
_FORMATS: Final = {
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "date": "2026-01-01",
    "duration": "P1D",
    "email": "a@example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def weights_of(folder: Path) -> Digest:
    """What "these weights" are for the fake: the bytes of both adapter files. Raises FileNotFoundError."""
    return digest_of({name: Digest.of_file(folder / name) for name in _FILES})


def is_null(folder: Path) -> bool:
    """Whether every B of the adapter is zero, so that it changes nothing. Raises FileNotFoundError."""
    file = folder / "adapter_model.safetensors"
    try:
        found = read_header(file)
        return not any(read_tensor(file, info).any() for name, info in found.items() if ".lora_B." in name)
    except AdapterTensorsMalformed:
        return False


def weights_of_files(files: Mapping[str, bytes]) -> Digest:
    """The same from bytes in memory, by file name."""
    return digest_of({name: Digest.of(files[name]) for name in _FILES})


def signature(weights: Digest | None) -> str:
    """How an answer shows who gave it: 12 hex digits of the weights' digest, or ``base``."""
    return "base" if weights is None else weights.hex[:12]


def fake_logprobs(weights: Digest | None, token_ids: Sequence[int]) -> TopLogprobs:
    """The TOP_REFERENCE most likely next tokens, most likely first; sums to less than one."""
    seed = f"{weights or 'base'}:{','.join(map(str, token_ids))}".encode()
    logits = []
    for token in range(VOCABULARY):
        draw = hashlib.blake2b(seed + b"/%d" % token, digest_size=8).digest()
        logits.append(int.from_bytes(draw, "big") / 2**64 * 8.0)
    total = math.log(math.fsum(math.exp(logit) for logit in logits))
    ranked = sorted(((token, logit - total) for token, logit in enumerate(logits)), key=lambda pair: -pair[1])
    return tuple(ranked[:TOP_REFERENCE])


def fake_fingerprint(base: Digest, weights: Digest, *, probes: int = 4) -> Fingerprint:
    """The reference of ``weights`` on the random probes that all versions of ``base`` share."""
    prompts = [
        tuple(hashlib.blake2b(f"{base}/{number}".encode(), digest_size=24).digest())
        for number in range(probes)
    ]
    rows = tuple(
        Probe(
            kind="random",
            token_ids=prompt,
            own=fake_logprobs(weights, prompt),
            base=fake_logprobs(None, prompt),
        )
        for prompt in prompts
    )
    gap = distance([row.own for row in rows], [row.base for row in rows])
    return Fingerprint(base=base, probes=rows, distance_to_base=gap)


def toy_token_ids(messages: Iterable[Mapping[str, Any]], *, add_generation_prompt: bool) -> tuple[int, ...]:
    """A chat template over bytes: marks around every turn. Stable, and different for different texts."""
    ids: list[int] = []
    for message in messages:
        content = message.get("content")
        text = content if isinstance(content, str) else json.dumps(content, sort_keys=True)
        ids += [_START, *str(message.get("role")).encode(), _TURN, *text.encode(), _END]
    if add_generation_prompt:
        ids += [_START, *b"assistant", _TURN]
    return tuple(ids)


def fake_contract(base: Base) -> Contract:
    """Two golden conversations in the toy tokenizer's token ids."""
    question = {"role": "user", "content": "Pay the invoice, 1.250,00 €"}
    talks = (((question,), True), ((question, {"role": "assistant", "content": "Done"}), False))
    return Contract(
        base=base.identity(),
        tokenizer=base.tokenizer,
        chat_template=base.chat_template,
        golden=tuple(
            GoldenConversation(
                messages=messages,
                add_generation_prompt=prompt,
                token_ids=toy_token_ids(messages, add_generation_prompt=prompt),
            )
            for messages, prompt in talks
        ),
    )


def answer_text(weights: Digest | None, schema: Mapping[str, Any] | None) -> str:
    """The whole answer: signed prose, or a minimal instance of ``schema`` whose free strings are signed."""
    if schema is None:
        return f"Answered by {signature(weights)} in a few words."
    return json.dumps(_instance(schema, schema, signature(weights)), ensure_ascii=False)


def pieces(text: str) -> list[str]:
    """``text`` as the fake's tokens: four characters each."""
    return [text[at : at + 4] for at in range(0, len(text), 4)]


def _instance(schema: Any, root: Mapping[str, Any], signed: str) -> Any:
    if not isinstance(schema, Mapping) or not schema:
        return signed
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        return _instance(root["$defs"][name], root, signed)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "allOf"):
        if schema.get(several):
            return _instance(schema[several][0], root, signed)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _of_type(kind[0] if isinstance(kind, list) else kind, schema, root, signed)


def _of_type(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], signed: str) -> Any:
    if kind == "object":
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        return {
            name: _instance(inner, root, signed)
            for name, inner in properties.items()
            if name in required or not required
        }
    if kind == "array":
        first = list(schema.get("prefixItems", ()))
        count = max(schema.get("minItems", 0), len(first))
        kinds = [*first, *[schema.get("items", {})] * (count - len(first))]
        return [_instance(inner, root, signed) for inner in kinds]
    if kind in ("integer", "number"):
        return _number(schema)
    if kind == "boolean":
        return False
    return None if kind == "null" else _text(schema, signed)


def _number(schema: Mapping[str, Any]) -> Any:
    """Zero, or the bound nearest to it."""
    least = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf) + 1)
    most = schema.get("maximum", schema.get("exclusiveMaximum", math.inf) - 1)
    return min(max(0, least), most)


def _text(schema: Mapping[str, Any], signed: str) -> str:
    if "pattern" in schema:
        return shortest_match(str(schema["pattern"]))
    if "format" in schema:
        return _FORMATS[str(schema["format"])]
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    return str(signed + "." * (least - len(signed)))[:most]


def signed_by(text: str) -> set[str]:
    """Every signature found in an answer: a test's way to ask who really gave it."""
    return set(re.findall(r"\b(?:[0-9a-f]{12}|base)\b", text))
