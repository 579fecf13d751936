"""A base of a few hundred weights and PEFT folders for it, written with numpy alone (no torch)."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from registry.contract import Contract, GoldenConversation
from registry.digests import Digest
from registry.fingerprint import MAX_PROBE_TOKENS, MAX_PROBES, MAX_TOKENS, Fingerprint, Probe
from registry.models import Base

HIDDEN, KEYS, MLP, LAYERS = 8, 4, 16, 2


def tiny_base(name: str = "tiny", *, revision: str = "r1") -> tuple[Base, Contract]:
    """A two-layer Llama-shaped base and its contract; another ``revision`` is another base."""
    modules: dict[str, tuple[int, int]] = {}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        modules[f"{at}.self_attn.q_proj"] = (HIDDEN, HIDDEN)
        modules[f"{at}.self_attn.k_proj"] = (KEYS, HIDDEN)
        modules[f"{at}.self_attn.v_proj"] = (KEYS, HIDDEN)
        modules[f"{at}.self_attn.o_proj"] = (HIDDEN, HIDDEN)
        modules[f"{at}.mlp.gate_proj"] = (MLP, HIDDEN)
        modules[f"{at}.mlp.up_proj"] = (MLP, HIDDEN)
        modules[f"{at}.mlp.down_proj"] = (HIDDEN, MLP)
    base = Base(
        name=name,
        revision=revision,
        config=Digest.of(b"config"),
        weights=Digest.of(f"weights {name} {revision}".encode()),
        tokenizer=Digest.of(b"tokenizer"),
        chat_template=Digest.of(b"template"),
        modules=modules,
    )
    contract = Contract(
        base=base.identity(),
        tokenizer=base.tokenizer,
        chat_template=base.chat_template,
        golden=(
            GoldenConversation(
                messages=({"role": "user", "content": "hello"},),
                add_generation_prompt=True,
                token_ids=(1, 2, 3),
            ),
        ),
    )
    return base, contract


def write_adapter(folder: Path, base: Base, *, rank: int = 4, seed: int = 0, alpha: int = 8) -> Path:
    """A plain LoRA on q_proj and v_proj of every layer, as PEFT's ``save_pretrained`` lays it out.

    ``seed`` decides the weights, so that two seeds are two versions. Returns ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for module, (out, into) in base.modules.items():
        if module.rpartition(".")[2] in {"q_proj", "v_proj"}:
            prefix = f"base_model.model.{module}"
            tensors[f"{prefix}.lora_A.weight"] = random.normal(0, 0.1, (rank, into)).astype(np.float32)
            tensors[f"{prefix}.lora_B.weight"] = random.normal(0, 0.1, (out, rank)).astype(np.float32)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


def write_safetensors(path: Path, tensors: dict[str, npt.NDArray[np.float32]]) -> None:
    """The safetensors layout: u64 header length, JSON header padded to 8 bytes, then the raw tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in sorted(tensors.items()):
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(tensor.tobytes() for _, tensor in sorted(tensors.items()))
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def tiny_fingerprint(base: Digest, *, seed: int = 0) -> Fingerprint:
    """A well-formed fingerprint with made-up numbers; ``seed`` decides them."""
    random = np.random.default_rng(seed)
    probes = []
    for _ in range(2):
        own = np.log(np.sort(random.dirichlet(np.ones(64)))[::-1])
        bare = np.log(np.sort(random.dirichlet(np.ones(64)))[::-1])
        probes.append(
            Probe(
                kind="random",
                token_ids=tuple(int(token) for token in random.integers(0, 64, 6)),
                own=tuple((index, float(value)) for index, value in enumerate(own)),
                base=tuple((63 - index, float(value)) for index, value in enumerate(bare)),
            )
        )
    return Fingerprint(base=base, probes=tuple(probes), distance_to_base=0.5)


def probing(fingerprint: Fingerprint, prompts: Iterable[tuple[int, ...]]) -> Fingerprint:
    """The same, asking other prompts."""
    probes = tuple(fingerprint.probes[0].model_copy(update={"token_ids": each}) for each in prompts)
    return fingerprint.model_copy(update={"probes": probes})


def endless_fingerprints(base: Digest) -> tuple[Fingerprint, ...]:
    """More than any engine is asked: too many probes, too long a one, too many tokens in all of them."""
    made = tiny_fingerprint(base)
    many = [(number,) for number in range(MAX_PROBES + 1)]
    whole = [(number,) * MAX_PROBE_TOKENS for number in range(MAX_TOKENS // MAX_PROBE_TOKENS)]
    return tuple(
        probing(made, prompts) for prompts in (many, [(1,) * (MAX_PROBE_TOKENS + 1)], [*whole, (99,)])
    )
