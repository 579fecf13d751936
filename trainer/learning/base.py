"""Loading a base, and the quiet, seeded, bounded surroundings in which anything here computes."""

import contextlib
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from trainer.errors import LibrariesMissing

THREADS: Final = 2
"""At most. Sums in float32 depend on how many threads share them, so a digest does too: a fixed number
makes the same training give the same adapter. Two is what the demo machine has."""

_LOUD: Final = ("transformers", "trl", "peft", "accelerate", "datasets", "torch", "bitsandbytes")


def load_tokenizer(folder: Path) -> Any:
    """The base's own tokenizer and chat template; nothing is downloaded and no code of the folder runs."""
    with needed_libraries():
        from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def padding_id(tokenizer: Any) -> int:
    """What fills a batch. Masks keep it out of everything, so the end of turn will do where none is set."""
    pad = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id if pad is None else pad)


def load_model(folder: Path, *, device: str = "cpu", half: bool = False, dtype: str | None = None) -> Any:
    """The bare base in evaluation mode, float32 unless ``half`` (bfloat16, for training on a GPU) or
    ``dtype``."""
    with needed_libraries():
        import torch
        from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=getattr(torch, dtype or ("bfloat16" if half else "float32")),
        local_files_only=True,
        trust_remote_code=False,
    )
    return model.to(device).eval()


def quantized_model(folder: Path, *, device: str) -> Any:
    """The base in 4-bit NormalFloat (QLoRA, arXiv:2305.14314), computing in float32 on a CPU and in bfloat16
    on a GPU. Raises LibrariesMissing."""
    with needed_libraries():
        import bitsandbytes  # noqa: F401 - transformers would say it less clearly
        import torch
        from peft import prepare_model_for_kbit_training
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=kind,
        device_map={"": device},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=kind,
            bnb_4bit_use_double_quant=True,
        ),
        local_files_only=True,
        trust_remote_code=False,
    )
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def with_adapter(model: Any, folder: Path) -> Any:
    """``model`` with the PEFT adapter of ``folder`` on it. ``disable_adapter()`` gives the base again."""
    with needed_libraries():
        from peft import PeftModel
    return PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()


def best_device() -> str:
    with needed_libraries():
        import torch
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def needed_libraries() -> Iterator[None]:
    """A missing training library as one sentence instead of a traceback."""
    if "torch" not in sys.modules:
        # libgomp reads this when torch is loaded and never again. Its threads otherwise spin while they wait
        # for each other: on two cores with anything else running, a step took 3.4 s instead of 0.5 s.
        os.putenv("OMP_WAIT_POLICY", "PASSIVE")
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _LOUD:
            raise LibrariesMissing(f"{error.name} is not installed", library=error.name) from None
        raise


@contextlib.contextmanager
def surroundings(*, seed: int) -> Iterator[None]:
    """Seed every generator, bound the threads, silence the libraries; all as before when it ends.

    The libraries print bars and warnings of their own: whoever watches a run sees events instead.
    """
    with needed_libraries():
        import numpy as np
        import torch
        from transformers.utils import logging as chatter

    threads = torch.get_num_threads()
    states = (random.getstate(), np.random.get_state(), torch.random.get_rng_state())
    bars = chatter.is_progress_bar_enabled()
    levels = {name: logging.getLogger(name).level for name in _LOUD}
    try:
        torch.set_num_threads(max(1, min(THREADS, os.cpu_count() or 1)))
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        chatter.disable_progress_bar()
        for name in _LOUD:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            chatter.enable_progress_bar()
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])
        torch.set_num_threads(threads)
