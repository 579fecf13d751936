"""Distillation across tokenizers (GOLD, HuggingFaceH4 2025; ULD, arXiv:2402.12030) with TRL's loss.

Both models read the same conversation, each through its own tokenizer and chat template, and their
distributions are compared wherever both have a token border in the answer.
"""

from collections.abc import Sequence
from typing import Any

from trainer.datasets import Conversation
from trainer.errors import TokenizerUnaligned
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.job import Job, Learned
from trainer.learning.masks import prove
from trainer.learning.rows import Row, make_rows
from trainer.learning.session import Session, arguments, finish, open_session
from trainer.learning.teachers import OpenTeacher, load_teacher
from trainer.learning.white_box import Arranged, arranged, pad_token, padded
from trainer.recipes.methods import GoldSettings


def learn(job: Job[GoldSettings, Conversation]) -> Learned:
    """Raises TokenizerUnaligned, the faults of rows on either side, MaskBroken and TrainingDiverged."""
    with surroundings(seed=job.seed):
        session = open_session(job)
        teacher = load_teacher(job, session)
        _refuse_other_tokens(session, teacher)
        ready = arranged(job, session)
        read = make_rows(
            teacher.tokenizer, ready.examples, max_length=teacher.model.config.max_position_embeddings,
            file=job.file,
        )  # fmt: skip
        offsets = _Offsets(session, teacher, ready.rows, read)
        trainer = _trainer(job, session, teacher, ready, read, offsets)
        proof = prove(session.tokenizer, ready.examples, trainer.get_train_dataloader(), order=ready.order)
        return finish(job, session, trainer, proof={**proof.as_json(), "borders": offsets.shared()})


def _refuse_other_tokens(session: Session, teacher: OpenTeacher) -> None:
    """Raise TokenizerUnaligned: byte offsets are read off tokens that are pieces of bytes."""
    from trl.experimental.utils import is_byte_level_tokenizer

    for who, tokenizer in (("student", session.tokenizer), ("teacher", teacher.tokenizer)):
        if not is_byte_level_tokenizer(tokenizer.backend_tokenizer):
            raise TokenizerUnaligned(f"the {who}'s tokens are no pieces of bytes")


class _Offsets:
    """Where in the answer, in bytes, each token ends: for the student's and for the teacher's rows."""

    def __init__(
        self, session: Session, teacher: OpenTeacher, own: Sequence[Row], read: Sequence[Row]
    ) -> None:
        self.own = [_offsets(session.tokenizer, row) for row in own]
        self.read = [_offsets(teacher.tokenizer, row) for row in read]

    def shared(self) -> dict[str, int]:
        """For the proof: how many borders each side has in all answers, and how many both."""
        ends = [
            ({end for _, end in own if end}, {end for _, end in read if end})
            for own, read in zip(self.own, self.read, strict=True)
        ]
        return {
            "student": sum(len(own) for own, _ in ends),
            "teacher": sum(len(read) for _, read in ends),
            "both": sum(len(own & read) for own, read in ends),
        }


def _offsets(tokenizer: Any, row: Row) -> list[tuple[int, int]]:
    """(0, 0) for the prompt; the end of turn is an empty span behind the last byte, so that both sides' are
    compared with each other whatever they are called."""
    from trl.experimental.utils import piece_byte_len

    spans, at = [(0, 0)] * row.prompt, 0
    for piece in tokenizer.convert_ids_to_tokens(list(row.input_ids[row.prompt : -1])):
        spans.append((at, at + piece_byte_len(piece)))
        at = spans[-1][1]
    return [*spans, (at, at)]


def _trainer(
    job: Job[Any, Any],
    session: Session,
    teacher: OpenTeacher,
    ready: Arranged,
    read: Sequence[Row],
    offsets: _Offsets,
) -> Any:
    with needed_libraries():
        import torch
        from datasets import Dataset
        from torch.utils.data import SequentialSampler
        from transformers import Trainer as PlainTrainer
        from trl.experimental.gold import GOLDConfig, GOLDTrainer

    settings: GoldSettings = job.settings

    def collate(samples: Sequence[dict[str, int]]) -> dict[str, Any]:
        places = [sample["row"] for sample in samples]
        own = padded([ready.rows[place] for place in places], pad_token(session.tokenizer))
        other = padded([read[place] for place in places], pad_token(teacher.tokenizer))
        return {
            **own,
            "byte_offsets": _grid([offsets.own[place] for place in places], own),
            **{f"teacher_{name}": tensor for name, tensor in other.items()},
            "teacher_byte_offsets": _grid([offsets.read[place] for place in places], other),
        }

    class Trainer(GOLDTrainer):  # type: ignore[misc]  # trl is not followed, so it is Any
        """TRL shuffles, regroups batches for its own rollouts, and shows the teacher the student's chat
        template read with the teacher's tokenizer. Only its loss is used."""

        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset if dataset is None else dataset)

        def get_train_dataloader(self) -> Any:
            return PlainTrainer.get_train_dataloader(self)

        def _prepare_inputs(self, inputs: Any) -> Any:
            self._step += 1
            return PlainTrainer._prepare_inputs(self, inputs)

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
            with torch.no_grad():
                taught = self.teacher_model(
                    input_ids=inputs["teacher_input_ids"], attention_mask=inputs["teacher_attention_mask"]
                )
            loss = self.uld_loss_fn(
                student_logits=outputs.logits,
                teacher_logits=taught.logits,
                student_labels=inputs["labels"],
                teacher_labels=inputs["teacher_labels"],
                student_input_ids=inputs["input_ids"],
                teacher_input_ids=inputs["teacher_input_ids"],
                student_byte_offsets=inputs["byte_offsets"],
                teacher_byte_offsets=inputs["teacher_byte_offsets"],
            )
            loss = loss / self.args.gradient_accumulation_steps  # a mean over rows, not over tokens
            return (loss, outputs) if return_outputs else loss

    config = GOLDConfig(
        **arguments(job, session),
        lmbda=0.0,
        beta=settings.divergence,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        shuffle_dataset=False,
        remove_unused_columns=False,
        use_uld_loss=True,
        # Split tokens by the chain rule: "observed" compares the distributions one token late.
        uld_token_merge_strategy="bayesian",  # noqa: S106 - no password
        uld_use_hybrid_loss=True,
        uld_student_temperature=settings.temperature,
        uld_teacher_temperature=settings.temperature,
        # The end of turn is learned like every other token, or the student never learns to stop.
        uld_skip_student_eos=False,
        uld_skip_teacher_eos=False,
        teacher_tokenizer_name_or_path=str(teacher.tokenizer.name_or_path),
    )
    return Trainer(
        model=session.model,
        teacher_model=teacher.model,
        args=config,
        data_collator=collate,
        train_dataset=Dataset.from_dict({"row": ready.order}),
        processing_class=session.tokenizer,
        peft_config=session.peft_config,
    )


def _grid(rows: Sequence[Sequence[tuple[int, int]]], batch: dict[str, Any]) -> Any:
    import torch

    width = batch["input_ids"].shape[1]
    return torch.tensor([[*row, *[(0, 0)] * (width - len(row))] for row in rows])
