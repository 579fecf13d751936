"""Generalized knowledge distillation (arXiv:2306.13649) with TRL: the teacher's whole distribution for every
token of an answer, instead of the one token that was drawn."""

from collections.abc import Sequence
from typing import Any

from trainer.datasets import Conversation
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.job import Job, Learned
from trainer.learning.masks import prove
from trainer.learning.rows import IGNORED, Row
from trainer.learning.session import Session, arguments, finish, open_session
from trainer.learning.teachers import OpenTeacher, load_teacher, refuse_other_vocabulary
from trainer.learning.white_box import Arranged, arranged, pad_token, padded, prompts_of
from trainer.recipes.methods import GkdSettings


def learn(job: Job[GkdSettings, Conversation]) -> Learned:
    """Raises VocabularyDiffers, the faults of rows, MaskBroken and TrainingDiverged."""
    with surroundings(seed=job.seed):
        session = open_session(job)
        teacher = load_teacher(job, session)
        refuse_other_vocabulary(session, teacher)
        ready = arranged(job, session)
        trainer = _trainer(job, session, teacher, ready)
        proof = prove(session.tokenizer, ready.examples, trainer.get_train_dataloader(), order=ready.order)
        return finish(job, session, trainer, proof=proof.as_json())


def _trainer(job: Job[Any, Any], session: Session, teacher: OpenTeacher, ready: Arranged) -> Any:
    with needed_libraries():
        import torch
        from datasets import Dataset
        from trl.experimental.gkd import GKDConfig, GKDTrainer

    settings: GkdSettings = job.settings
    pad = pad_token(session.tokenizer)

    def collate(samples: Sequence[dict[str, int]]) -> dict[str, Any]:
        rows: list[Row] = [ready.rows[sample["row"]] for sample in samples]
        return {**padded(rows, pad), **prompts_of(rows, pad)}

    class Trainer(GKDTrainer):  # type: ignore[misc]  # trl is not followed, so it is Any
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            """TRL's loss knows no temperature, holds both models' logits of every prompt token, and counts
            the tokens of the data's answers even where the student has written its own."""
            sees = {name: inputs[name] for name in ("input_ids", "attention_mask")}
            learned = inputs["labels"][:, 1:] != IGNORED
            outputs = model(**sees)
            with torch.no_grad():
                taught = self.teacher_model(**sees).logits[:, :-1][learned]
            loss = self.generalized_jsd_loss(
                student_logits=outputs.logits[:, :-1][learned],
                teacher_logits=taught,
                beta=settings.divergence,
                temperature=settings.temperature,
                num_items_in_batch=None if settings.on_policy else num_items_in_batch,
            )
            if settings.on_policy:
                loss = loss / self.args.gradient_accumulation_steps
            return (loss, outputs) if return_outputs else loss

    config = GKDConfig(
        **arguments(job, session),
        lmbda=settings.on_policy,
        beta=settings.divergence,
        temperature=settings.sampling.temperature,
        max_new_tokens=settings.sampling.max_new_tokens,
        max_length=None,
        train_sampling_strategy="sequential",
        shuffle_dataset=False,
    )
    trainer = Trainer(
        model=session.model,
        teacher_model=teacher.model,
        args=config,
        data_collator=collate,
        train_dataset=Dataset.from_dict({"row": ready.order}),
        processing_class=session.tokenizer,
        peft_config=session.peft_config,
    )
    trainer.generation_config.top_p = settings.sampling.top_p
    return trainer
