"""Training, contract, fingerprint and generation on the tiny base."""

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from registry.contract import Contract
from registry.digests import Digest
from registry.fingerprint import (
    MAX_NOISES,
    MAX_PROBES,
    MIN_SEPARATION,
    TOP_OBSERVED,
    TOP_REFERENCE,
    Fingerprint,
    beyond_bounds,
)
from registry.models import Base
from tests.support.pinned import trajectory
from trainer.datasets import Case, Conversation, Message
from trainer.errors import (
    ContractBroken,
    MaskBroken,
    NoLinearTargets,
    TrainingDiverged,
    ZeroEffect,
)
from trainer.learning.contract import check_contract, make_contract
from trainer.learning.job import Job
from trainer.learning.rows import Row
from trainer.learning.sft import learn
from trainer.learning.watch import Watch
from trainer.package import package
from trainer.recipes import LoraSettings, SftSettings

ROWS = tuple(
    Conversation(
        (
            Message("user", f"Pay {number}.50 EUR to Norvik"),
            Message("assistant", f'{{"amount":"{number}.50"}}'),
        ),
        number + 1,
    )
    for number in range(24)
)
SFT = SftSettings(steps=6, batch_size=4, learning_rate=0.02, max_length=120, warmup_steps=1)
LORA = LoraSettings(rank=4, alpha=8)


@dataclass
class Trained:
    """What a job learned, and the figures of its steps."""

    folder: Path
    proof: dict[str, Any]
    steps: list[dict[str, float]] = field(default_factory=list)


def train(
    base_folder: Path, out: Path, *, sft: SftSettings = SFT, lora: LoraSettings = LORA, seed: int = 7
) -> Trained:
    steps: list[dict[str, float]] = []
    job = Job(
        settings=sft,
        rows=ROWS,
        file="train.jsonl",
        base_folder=base_folder,
        lora=lora,
        seed=seed,
        out=out / "raw",
        scratch=out / "scratch",
        on_step=lambda step, figures: steps.append({"step": step, **figures}),
    )
    learned = learn(job)
    return Trained(learned.folder, learned.proof, steps)


@pytest.fixture(scope="session")
def learned(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(base_folder, tmp_path_factory.mktemp("learned"))


@pytest.fixture(scope="session")
def adapter(learned: Trained, base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapter")
    package(learned.folder, out, base=base.identity(), base_name=base.name)
    return out


def test_the_first_losses_are_pinned(learned: Trained) -> None:
    """From a random base: near ln(320), then down. A change of data, masks, order or optimiser shows."""
    losses = [step["loss"] for step in learned.steps]
    expected = [5.49416, 5.49118, 5.44455, 5.40279, 5.33018, 5.31441]
    assert losses == trajectory(expected, first=1e-4, drift=1e-3)


def test_the_masks_were_proven_on_the_real_batches(learned: Trained) -> None:
    assert learned.proof["rows"] == 24
    assert learned.proof["sample_answer"].endswith('.50"}<|im_end|>')


def test_the_same_training_gives_the_same_digest_and_another_seed_another(
    learned: Trained, base_folder: Path, base: Base, tmp_path: Path
) -> None:
    random.seed(99)  # whatever the process did before must not matter
    again = train(base_folder, tmp_path / "again")
    other = train(base_folder, tmp_path / "other", seed=8)
    digests = []
    for number, run in enumerate((learned, again, other)):
        files = package(run.folder, tmp_path / f"adapter-{number}", base=base.identity(), base_name="tiny")
        digests.append([Digest.of_file(path) for path in files])
    assert digests[0] == digests[1]
    assert digests[0][1] != digests[2][1]
    assert again.steps == learned.steps


def test_training_leaves_the_process_as_it_was(base_folder: Path, tmp_path: Path) -> None:
    import logging

    import torch

    random.seed(5)
    torch.manual_seed(5)
    threads, level = torch.get_num_threads(), logging.getLogger("transformers").level
    expected = (random.Random(5).random(), torch.rand(1, generator=torch.Generator().manual_seed(5)))
    train(base_folder, tmp_path, sft=SFT.model_copy(update={"steps": 2}))
    assert random.random() == expected[0]
    assert torch.equal(torch.rand(1), expected[1])
    assert (torch.get_num_threads(), logging.getLogger("transformers").level) == (threads, level)


def test_training_prints_nothing(
    base_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = train(base_folder, tmp_path, sft=SFT.model_copy(update={"steps": 2}))
    assert [step["step"] for step in run.steps] == [1, 2]
    assert capfd.readouterr() == ("", "")


def test_labels_that_learn_the_prompt_never_reach_a_step(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Row, "labels", property(lambda row: row.input_ids))
    with pytest.raises(MaskBroken, match="not exactly the prompt"):
        train(base_folder, tmp_path)
    assert not (tmp_path / "raw").exists()


def test_a_rate_that_is_too_high_is_called_divergence(base_folder: Path, tmp_path: Path) -> None:
    sft = SftSettings(
        steps=40, batch_size=4, learning_rate=1.0, max_length=120, warmup_steps=0, schedule="constant"
    )
    with pytest.raises(TrainingDiverged):
        train(base_folder, tmp_path, sft=sft, lora=LoraSettings(rank=4, alpha=4096))


def test_dead_and_broken_runs_are_told_apart_from_slow_ones() -> None:
    uniform = math.log(320)

    seen: list[int] = []

    def fresh() -> Watch:
        return Watch(uniform, lambda step, figures: seen.append(step), cross_entropy="loss")

    watch = fresh()
    for step in range(1, 20):
        watch.saw(step, {"loss": uniform, "grad_norm": 0.5})  # knows nothing yet, and moves
    assert seen == list(range(1, 20))
    watch = fresh()
    watch.saw(1, {"loss": uniform, "grad_norm": 0.0})
    watch.saw(2, {"loss": uniform, "grad_norm": 0.0})
    with pytest.raises(TrainingDiverged, match=r"step 3: the loss sits at 5\.77"):
        watch.saw(3, {"loss": uniform, "grad_norm": 0.0})
    watch = fresh()
    for step in (1, 2):
        watch.saw(step, {"loss": 1.0, "grad_norm": 0.0})
    with pytest.raises(TrainingDiverged, match=r"step 3: the loss sits at 1\.00, wherever it was"):
        watch.saw(3, {"loss": 1.0, "grad_norm": 0.0})
    part = Watch(uniform, lambda step, figures: None, cross_entropy="nll_loss")
    flat = {"loss": 0.7, "nll_loss": uniform, "grad_norm": 1e-4}
    for step in (1, 2):
        part.saw(step, flat)
    with pytest.raises(
        TrainingDiverged, match=r"step 3: the loss sits at 5\.77, that of a model which knows"
    ):
        part.saw(3, flat)
    margins = Watch(uniform, lambda step, figures: None)
    for step in range(1, 9):
        margins.saw(step, {"loss": 9.0, "grad_norm": 1e-4})  # no likelihood: a large loss says nothing
        margins.saw(step, {"loss": 9.0})  # nor does a trainer that tells no gradient
    for step in (1, 2):
        margins.saw(step, {"loss": 0.7, "grad_norm": 0.0})
    with pytest.raises(TrainingDiverged, match=r"step 3: the loss sits at 0\.70, wherever it was"):
        margins.saw(3, {"loss": 0.7, "grad_norm": 0.0})
    rewards = Watch(uniform, lambda step, figures: None, may_rest=True)  # equal rewards: that is no death
    for step in range(1, 9):
        rewards.saw(step, {"loss": 0.0, "grad_norm": 0.0})
    for loss, gradient in ((math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0)):
        with pytest.raises(TrainingDiverged, match="step 1"):
            fresh().saw(1, {"loss": loss, "grad_norm": gradient})


def test_a_target_that_the_base_lacks_is_named(base_folder: Path) -> None:
    from trainer.learning.base import load_model
    from trainer.learning.lora import check_targets

    model = load_model(base_folder)
    check_targets(model, LORA)
    for layer in model.model.layers:
        del layer.mlp.up_proj
    with pytest.raises(NoLinearTargets, match="up_proj"):
        check_targets(model, LORA)


# Contract


def test_a_contract_holds_golden_token_ids_with_and_without_generation_prompt(
    base: Base, base_folder: Path
) -> None:
    contract = make_contract(base.identity(), base_folder)
    assert (contract.tokenizer, contract.chat_template) == (base.tokenizer, base.chat_template)
    assert len(contract.golden) == 16
    for bare, prompted in zip(contract.golden[::2], contract.golden[1::2], strict=True):
        assert (bare.add_generation_prompt, prompted.add_generation_prompt) == (False, True)
        assert bare.messages == prompted.messages
        assert prompted.token_ids[: len(bare.token_ids)] == bare.token_ids
        assert len(prompted.token_ids) > len(bare.token_ids)
    assert {message["role"] for one in contract.golden for message in one.messages} == {
        "system",
        "user",
        "assistant",
    }
    assert Contract.parse(contract.canonical()) == contract
    check_contract(contract, base_folder)


def test_a_changed_template_tokenizer_or_rendering_breaks_the_contract(
    base: Base, base_folder: Path, tmp_path: Path
) -> None:
    import shutil

    contract = make_contract(base.identity(), base_folder)
    for name, old, new in (
        ("chat_template.jinja", "<|im_start|>assistant\\n", "<|im_start|>assistant \\n"),
        ("tokenizer.json", '"version": "1.0"', '"version":  "1.0"'),
    ):
        folder = tmp_path / name
        shutil.copytree(base_folder, folder)
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))
        with pytest.raises(ContractBroken):
            check_contract(contract, folder)
    first = contract.golden[0]
    other = first.model_copy(update={"token_ids": (*first.token_ids[:-1], 1)})
    with pytest.raises(ContractBroken, match="golden conversation 0"):
        check_contract(contract.model_copy(update={"golden": (other, *contract.golden[1:])}), base_folder)


# Fingerprint


def prompts() -> list[Any]:
    from trainer.learning.fingerprint import TenantPrompt

    return [TenantPrompt((Message("user", f"Pay {n}.50 EUR"),), f'{{"amount":"{n}.50"}}') for n in range(20)]


@pytest.fixture(scope="session")
def fingerprint(base: Base, base_folder: Path, adapter: Path) -> Fingerprint:
    from trainer.learning.fingerprint import make_fingerprint

    return make_fingerprint(base.identity(), base_folder, adapter, prompts())


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments .'tenon_base'.:UserWarning")
def test_a_fingerprint_equals_what_peft_computes(
    fingerprint: Fingerprint, base_folder: Path, adapter: Path
) -> None:
    """Once more from the libraries alone, in float64 after the logits."""
    import numpy as np
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected_base = [
            bare(torch.tensor([list(probe.token_ids)])).logits[0, -1] for probe in fingerprint.probes
        ]
        model = PeftModel.from_pretrained(bare, adapter).eval()
        expected_own = [
            model(torch.tensor([list(probe.token_ids)])).logits[0, -1] for probe in fingerprint.probes
        ]
    for probe, own, base_logits in zip(fingerprint.probes, expected_own, expected_base, strict=True):
        for logits, found in ((own, probe.own), (base_logits, probe.base)):
            values = logits.double().numpy()
            logprobs = values - (np.log(np.exp(values - values.max()).sum()) + values.max())
            assert len(found) == TOP_REFERENCE
            assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
            assert {t for t, _ in found[:TOP_OBSERVED]} == set(np.argsort(-logprobs)[:TOP_OBSERVED].tolist())
            assert max(abs(logprobs[token] - p) for token, p in found) < 1e-5


def test_probes_are_eight_random_ones_and_eight_of_the_tenant(
    fingerprint: Fingerprint, base: Base, base_folder: Path
) -> None:
    from trainer.learning.base import load_tokenizer
    from trainer.learning.fingerprint import random_prompts

    kinds = [probe.kind for probe in fingerprint.probes]
    assert kinds == ["random"] * 8 + ["tenant"] * 8
    tokenizer = load_tokenizer(base_folder)
    assert [probe.token_ids for probe in fingerprint.probes[:8]] == random_prompts(base.identity(), tokenizer)
    assert random_prompts(Digest.of(b"other"), tokenizer) != random_prompts(base.identity(), tokenizer)
    reserved = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    assert not reserved & {token for probe in fingerprint.probes[:8] for token in probe.token_ids}
    for probe in fingerprint.probes[8:]:
        text = tokenizer.decode(probe.token_ids)
        assert text.startswith("<|im_start|>user\nPay ")
        assert "<|im_start|>assistant\n" in text
    assert fingerprint.distance_to_base > 0.01
    assert beyond_bounds(fingerprint) is None


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments .'tenon_base'.:UserWarning")
def test_a_tenant_probe_is_cut_where_the_adapter_changes_most(
    fingerprint: Fingerprint, base_folder: Path, adapter: Path
) -> None:
    import torch

    from trainer.learning.base import load_model, load_tokenizer, with_adapter
    from trainer.learning.rows import render

    tokenizer, model = load_tokenizer(base_folder), with_adapter(load_model(base_folder), adapter)
    prompt = prompts()[0]
    start = len(render(tokenizer, prompt.messages, add_generation_prompt=True))
    whole = render(tokenizer, (*prompt.messages, Message("assistant", prompt.answer)))
    with torch.no_grad():
        own = torch.log_softmax(model(torch.tensor([list(whole)])).logits[0], dim=-1)
        with model.disable_adapter():
            bare = torch.log_softmax(model(torch.tensor([list(whole)])).logits[0], dim=-1)

    def changed(length: int) -> float:
        """How much the adapter changes the token after the first ``length``."""
        top = own[length - 1].topk(TOP_OBSERVED).indices
        return float((own[length - 1] - bare[length - 1])[top].abs().mean())

    cuts = [
        len(probe.token_ids)
        for probe in fingerprint.probes
        if probe.token_ids == whole[: len(probe.token_ids)]
    ]
    assert cuts == [max(range(start, len(whole)), key=changed)]


def test_an_adapter_without_effect_has_no_fingerprint(
    base: Base, base_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from trainer.learning.fingerprint import make_fingerprint

    tensors = load_file(adapter / "adapter_model.safetensors")
    faint = {name: tensor * (1e-7 if "lora_B" in name else 1) for name, tensor in tensors.items()}
    save_file(faint, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    with pytest.raises(ZeroEffect, match="away from its base"):
        make_fingerprint(base.identity(), base_folder, tmp_path, prompts())


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments .'tenon_base'.:UserWarning")
def test_a_faint_adapter_gets_more_probes_and_says_where_it_stays_weak(
    base: Base, base_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from trainer.learning.base import load_tokenizer
    from trainer.learning.fingerprint import make_fingerprint, random_prompts

    tensors = load_file(adapter / "adapter_model.safetensors")
    faint = {name: tensor * (0.01 if "lora_B" in name else 1) for name, tensor in tensors.items()}
    save_file(faint, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    made = make_fingerprint(base.identity(), base_folder, tmp_path, prompts())
    assert set(made.noise) == {"bfloat16", "float16"}
    assert made.noise["float16"] < made.noise["bfloat16"], "three bits more"
    for dtype, noise in made.noise.items():
        assert (dtype in made.weak) is (made.distance_to_base < MIN_SEPARATION * noise)
    assert "bfloat16" in made.weak
    assert len(made.probes) <= MAX_PROBES
    assert beyond_bounds(made) is None
    twin = Digest.of(b"twin")
    again = make_fingerprint(base.identity(), base_folder, tmp_path, prompts(), siblings={twin: made})
    assert again.alike == {"bfloat16": (twin,), "float16": (twin,)}
    # Beyond what an answer may be off, and within what two references need to be told apart.
    off = 4 * made.noise["float16"]
    near = made.model_copy(
        update={
            "probes": tuple(
                probe.model_copy(update={"own": tuple((token, value - off) for token, value in probe.own)})
                for probe in made.probes
            )
        }
    )
    beside = make_fingerprint(base.identity(), base_folder, tmp_path, prompts(), siblings={twin: near})
    assert MAX_NOISES < off / beside.noise["float16"] < MIN_SEPARATION
    assert beside.alike == {"bfloat16": (twin,), "float16": (twin,)}
    shared = random_prompts(base.identity(), load_tokenizer(base_folder), MAX_PROBES)
    found = [probe.token_ids for probe in again.probes if probe.kind == "random"]
    assert set(found) <= set(shared)
    assert shared[:8] == random_prompts(base.identity(), load_tokenizer(base_folder))


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments .'tenon_base'.:UserWarning")
def test_a_fingerprint_stays_within_what_engines_are_asked_whatever_there_is_to_ask(
    base: Base, base_folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions that are too long, answers that are, the same one twice; a sibling of before the bounds."""
    from trainer.learning import fingerprint as made_by
    from trainer.learning.fingerprint import TenantPrompt, make_fingerprint

    asked = prompts()
    long = TenantPrompt((Message("user", "Pay " * 60),), "later")
    wordy = TenantPrompt(asked[0].messages, "never " * 60)
    alone = make_fingerprint(base.identity(), base_folder, adapter, asked)
    one = alone.probes[0]
    sibling = alone.model_copy(
        update={
            "probes": (
                *alone.probes,
                one.model_copy(update={"token_ids": (1,) * 200}),
                one.model_copy(update={"token_ids": (10**6,)}),
                one.model_copy(update={"token_ids": (-1,)}),
            )
        }
    )
    most = max(len(probe.token_ids) for probe in alone.probes)
    room = sum(len(probe.token_ids) for probe in alone.probes) + 100
    monkeypatch.setattr(made_by, "MAX_PROBE_TOKENS", most)
    monkeypatch.setattr(made_by, "MAX_TOKENS", room)
    measured: list[list[tuple[int, ...]]] = []

    def measure(model: Any, chosen: list[Any], *folders: Path) -> Any:
        measured.append([each.token_ids for each in chosen])
        return real(model, chosen, *folders)

    real = made_by._measure
    monkeypatch.setattr(made_by, "_measure", measure)
    before = {Digest.of(b"before"): sibling}
    twice = [*asked[:6], asked[0], wordy, long]
    made = make_fingerprint(base.identity(), base_folder, adapter, twice, siblings=before)
    assert beyond_bounds(made) is None
    first, more = measured
    assert more, "a sibling that behaves the same is to be told from it"
    lengths = [len(ids) for ids in (*first, *more)]
    assert len(set(first) | set(more)) == len(lengths) > 16
    assert max(lengths) <= most
    assert sum(lengths) <= room
    assert sum(lengths) > room - 30, "as many as fit"


# Generation


def test_batches_change_no_answer_and_the_adapter_can_be_put_aside(base_folder: Path, adapter: Path) -> None:
    from trainer.evaluation.local import load

    questions = [
        Case(str(number), (Message("user", "Pay " + "9" * number),), number) for number in (1, 30, 3, 17, 9)
    ]
    model = load(base_folder, adapter)
    done: list[int] = []
    alone = model.answers(questions, adapter=True, max_new_tokens=10, batch_size=1)
    together = model.answers(questions, adapter=True, max_new_tokens=10, batch_size=3, advanced=done.append)
    bare = model.answers(questions, adapter=False, max_new_tokens=10, batch_size=3)
    assert together == alone
    assert done == [3, 5]
    assert bare == load(base_folder).answers(questions, adapter=False, max_new_tokens=10, batch_size=5)
    assert bare != alone
    with pytest.raises(ValueError, match="without an adapter"):
        load(base_folder).answers(questions, adapter=True, max_new_tokens=1, batch_size=1)


def test_padding_is_invisible_to_a_base_that_reads_its_prompt() -> None:
    """The tiny base says much the same whatever it is asked, so it cannot tell. The shipped one copies."""
    from server.demo.build_base import SHIPPED_BASE
    from trainer.evaluation.local import load

    prompts: list[tuple[Message, ...]] = [
        (Message("user", "Please transfer 840.50 EUR to Norvik Ltd today."),),
        (Message("user", "Ledger: Kelmont SA, 12 USD"),),
        (
            Message("system", "Answer as compact JSON."),
            Message("user", "We owe Baldane AB 77120 SEK for an invoice."),
        ),
    ]
    questions = [Case(str(line), prompt, line) for line, prompt in enumerate(prompts)]
    model = load(SHIPPED_BASE)
    together = model.answers(questions, adapter=False, max_new_tokens=40, batch_size=3)
    assert together == model.answers(questions, adapter=False, max_new_tokens=40, batch_size=1)
    assert [amount in text for amount, text in zip(("840.50", "12", "77120"), together, strict=True)] == [
        True
    ] * 3


def test_an_answer_ends_before_its_end_of_turn(base_folder: Path) -> None:
    from trainer.evaluation.local import load

    model = load(base_folder)
    tokenizer = model._tokenizer
    said = tokenizer.encode('{"a":1}', add_special_tokens=False)
    assert model._text([*said, tokenizer.eos_token_id, *said]) == '{"a":1}'
    assert model._text(said) == '{"a":1}'


def test_the_only_thing_that_peft_does_not_know_is_our_base_digest(adapter: Path) -> None:
    from peft import PeftConfig

    with pytest.warns(UserWarning, match=r"Unexpected keyword arguments \['tenon_base'\]"):
        config = PeftConfig.from_pretrained(str(adapter))
    assert (config.r, config.lora_alpha, config.base_model_name_or_path) == (4, 8.0, "tiny")


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments .'tenon_base'.:UserWarning")
def test_the_divergence_is_that_of_the_two_distributions(base_folder: Path, adapter: Path) -> None:
    """Once more from the definition, on the same tokens."""
    import torch

    from trainer.evaluation.local import load
    from trainer.learning.base import load_model, load_tokenizer, with_adapter
    from trainer.learning.rows import render

    case = Case("1", (Message("user", "Pay 3.50 EUR"),), 1)
    text = '{"amount":"3.50"}'
    (found, silent) = load(base_folder, adapter).divergences([case, case], [text, ""])
    tokenizer, bare = load_tokenizer(base_folder), load_model(base_folder)
    start = render(tokenizer, case.prompt, add_generation_prompt=True)
    ids = torch.tensor([[*start, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        base = torch.log_softmax(bare(ids).logits[0, len(start) - 1 : -1].double(), -1)
        own = torch.log_softmax(with_adapter(bare, adapter)(ids).logits[0, len(start) - 1 : -1].double(), -1)
    expected = torch.nn.functional.kl_div(base, own, log_target=True, reduction="none").sum(-1).mean()
    assert found == pytest.approx(float(expected), rel=1e-4)
    assert found > 1e-3
    assert silent is None
