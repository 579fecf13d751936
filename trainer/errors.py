"""What can go wrong between a recipe and a published version, one leaf a reason.

InvalidInput (registry)
├── FileFaulty               a file that a person wrote, with every fault and its line
│   ├── RecipeInvalid        the recipe
│   ├── DataInvalid          training rows, evaluation cases or the answers' schema
│   └── DataLeak             a question is asked in training and again in the evaluation
├── ScaleInvalid             a training that cannot be spread over so many processes
├── MergeRefused             an adapter that cannot be written into its base's weights, or not there
├── SweepInvalid             a sweep with nothing to vary or to compare by
├── SourceInvalid            what names no place to read rows from
├── FormatUnknown            a file that is neither JSON Lines, CSV nor Parquet
└── TrainingRefused    422   the data and the base do not fit together (one leaf a trap TRL leaves open)
Conflict
├── BaseDiffers              the folder is not the base that the registry knows
└── RunBusy                  two trainings in one run folder
NotFound
├── BuiltinNotFound          no recipe of that name ships with Tenon
├── SourceMissing            no such data set, file, bucket or object
└── RunNotFinished           a run folder without a finished run in it
Refused
└── SourceRefused            rows that these credentials may not read
Corrupt
└── RunChanged               a finished run whose files are not what it wrote
TenonError
├── SourceUnreachable  503   the hub or the object store did not answer
└── TrainingFailed     500   learning itself went wrong
    ├── WorkerDied           one of several learning processes is gone
    └── EndpointFailed       a teacher or judge that is asked over HTTP
"""

from dataclasses import dataclass
from typing import Final

from registry.errors import Conflict, Corrupt, InvalidInput, NotFound, Refused, TenonError


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a file. ``where`` is ``recipe.yaml:12`` or the override that said it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


_SHOWN: Final = 50
"""Faults in a message; all of them are in ``faults``. More than a screen of them is read by nobody."""


class FileFaulty(InvalidInput):
    """Faults of one file, all at once: fixing a file one error at a time wastes an afternoon."""

    code = "file_faulty"

    def __init__(self, file: str, faults: tuple[Fault, ...], *, hint: str | None = None) -> None:
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        message = "\n".join([f"{file} has {count}", *map(str, faults[:_SHOWN]), *more])
        super().__init__(message, hint=hint, file=file)
        self.faults = faults


class RecipeInvalid(FileFaulty):
    code = "recipe_invalid"
    hint = "the keys and their bounds are listed in docs/reference/recipes.md"


class DataInvalid(FileFaulty):
    code = "data_invalid"
    hint = "nothing is dropped silently: correct or delete the lines above"


class DataLeak(FileFaulty):
    code = "data_leak"
    hint = "an evaluation question that was trained on proves nothing: keep it in one of the two files"


class ScaleInvalid(InvalidInput):
    code = "scale_invalid"
    hint = "choose --devices so that it divides the method's batch_size: then a step has the same rows"


class MergeRefused(InvalidInput):
    code = "merge_refused"
    hint = "give a new folder, and a version that passed its checks"


class SweepInvalid(InvalidInput):
    code = "sweep_invalid"
    hint = "write --sweep key=value,value such as --sweep lora.rank=4,8,16; several keys make a grid"


class SourceInvalid(InvalidInput):
    code = "data_source_invalid"
    hint = "write a file's path, hf://datasets/owner/name/file or s3://bucket/key"


class FormatUnknown(InvalidInput):
    code = "data_format_unknown"
    hint = "the end of the name says how rows are written: .jsonl, .csv or .parquet"


class SourceMissing(NotFound):
    code = "data_source_missing"


class SourceRefused(Refused):
    code = "data_source_refused"
    hint = "sign in as for any client: HF_TOKEN for the hub, AWS_PROFILE or a role for S3"


class SourceUnreachable(TenonError):
    code, status = "data_source_unreachable", 503
    hint = "check the network, HF_ENDPOINT or AWS_ENDPOINT_URL, and try again"


class TrainingRefused(InvalidInput):
    code, status = "training_refused", 422


class RowTooLong(TrainingRefused):
    code = "row_too_long"
    hint = "raise sft.max_length, or shorten the rows: a cut answer never learns to stop"


class SpecialTokenInText(TrainingRefused):
    code = "special_token_in_text"
    hint = "a control token inside a message forges a turn: remove it from the data"


class TemplateBroken(TrainingRefused):
    """The chat template renders a prompt differently alone and inside the conversation."""

    code = "template_broken"
    hint = "a rendered prompt must be a token prefix of the whole conversation: correct the chat template"


class EndOfTurnMissing(TrainingRefused):
    code = "end_of_turn_missing"
    hint = "set the tokenizer's eos_token to the token that ends an assistant turn in the chat template"


class MaskBroken(TrainingRefused):
    """What the trainer was about to learn is not exactly the answer and its end of turn."""

    code = "mask_broken"
    hint = "this is a defect of the training code or a library: do not use the adapter"


class ContractBroken(TrainingRefused):
    code = "contract_broken"
    hint = "train and serve with the same tokenizer and chat template: register the base again"


class ForeignModel(TrainingRefused):
    code = "foreign_model"
    hint = "tenants share bases, never adapters: start, teacher and judges must be the tenant's own"


class ZeroEffect(TrainingRefused):
    code = "zero_effect"
    hint = "the adapter answers as the base does: train longer or with a higher learning rate"


class NoLinearTargets(TrainingRefused):
    code = "no_linear_targets"
    hint = "lora.targets must name layers that this base has: tenon base show"


class ScoreUndefined(TrainingRefused):
    """The score of a reward model cannot be read off this base as engines would serve it."""

    code = "score_undefined"
    hint = (
        "a reward model needs a base with the tokens 0 and 1 whose logits are its last hidden state times "
        "its output layer: Qwen and Llama bases do"
    )


class VocabularyDiffers(TrainingRefused):
    code = "vocabulary_differs"
    hint = "use method gold, which aligns two tokenizers, or black_box, which only needs the teacher's text"


class TokenizerUnaligned(TrainingRefused):
    """A tokenizer whose tokens are no pieces of bytes cannot be aligned with another."""

    code = "tokenizer_unaligned"
    hint = "gold needs byte-level BPE tokenizers on both sides: use method black_box"


class TooFewAccepted(TrainingRefused):
    """The verifiers turned down so many answers that learning the rest would teach chance."""

    code = "too_few_accepted"
    hint = "look at the verifiers' counts above; draw more answers (samples), relax rewards, or lower least"


class NothingLeft(TrainingRefused):
    code = "nothing_left"
    hint = "widen --pass-rate; pairs also need an answer that the verifiers turned down"


class BaseDiffers(Conflict):
    code = "base_differs"
    hint = "register this folder as a new base, or train on the registered one"


class RunBusy(Conflict):
    code = "run_busy"
    hint = "another training writes to this run folder: wait for it, or choose another folder"


class BuiltinNotFound(NotFound):
    code = "builtin_not_found"
    hint = "tenon recipe list shows them"


class RunNotFinished(NotFound):
    code = "run_not_finished"
    hint = "run tenon train again: finished stages are reused"


class RunChanged(Corrupt):
    code = "run_changed"
    hint = "files of this run were changed after it finished: run tenon train --fresh"


class TrainingFailed(TenonError):
    code = "training_failed"


class TrainingDiverged(TrainingFailed):
    code = "training_diverged"
    hint = "lower the method's learning_rate or raise its warmup_steps"


class OutOfMemory(TrainingFailed):
    code = "out_of_memory"
    hint = "lower the method's batch_size or max_length"


class DiskFull(TrainingFailed):
    code, status = "disk_full", 507
    hint = "make room (or raise the quota) and run it again: finished stages and the last snapshot are kept"


class WorkerDied(TrainingFailed):
    code = "worker_died"
    hint = "run the same command again: learning goes on from the last snapshot"


class VerifierFailed(TrainingFailed):
    """A verifier raised, hung or gave no number."""

    code = "verifier_failed"
    hint = "try it on one answer with: tenon data verify"


class EndpointFailed(TrainingFailed):
    code = "endpoint_failed"


class EndpointUnreachable(EndpointFailed):
    """Down, overloaded or too slow, for longer than the retries last."""

    code, status = "endpoint_unreachable", 503
    hint = "answers already received are kept: run the same command again once the endpoint is back"


class EndpointRefused(EndpointFailed):
    """Reached, and it says no: a wrong key or model, a question it does not take, a quota used up."""

    code = "endpoint_refused"
    hint = (
        "check url, model and headers of the endpoint, and TENON_ENDPOINT_KEY_FILE, whose key is sent to "
        "TENON_ENDPOINT_HOST only; "
        "answers already received are kept"
    )


class JudgeUnreadable(TrainingFailed):
    code = "judge_unreadable"
    hint = (
        "a larger judge or a plainer rubric answers with one letter; its verdicts lie beside the output file"
    )


class LibrariesMissing(TrainingFailed):
    code = "training_libraries_missing"
    hint = "install them with: pip install 'tenon[train]'"
