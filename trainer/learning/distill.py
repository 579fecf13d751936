"""On-policy distillation with TRL: the student answers, the teacher says of every token how likely it would
have been. What the student never says costs nothing, so it learns to correct its own mistakes."""

from collections.abc import Sequence
from typing import Any

from trainer.datasets import Case
from trainer.errors import MaskBroken
from trainer.learning.base import needed_libraries, surroundings
from trainer.learning.batches import arrange
from trainer.learning.job import Job, Learned
from trainer.learning.rollouts import Prompt, make_prompts
from trainer.learning.rows import decode
from trainer.learning.session import Session, arguments, finish, open_session
from trainer.learning.teachers import OpenTeacher, load_teacher, refuse_other_vocabulary
from trainer.recipes.methods import DistillSettings


def learn(job: Job[DistillSettings, Case]) -> Learned:
    """Raises VocabularyDiffers, the faults of prompts, MaskBroken and TrainingDiverged."""
    settings = job.settings
    with surroundings(seed=job.seed):
        session = open_session(job)
        teacher = load_teacher(job, session)
        refuse_other_vocabulary(session, teacher)
        prompts = make_prompts(
            session.tokenizer, job.rows, file=job.file, room=settings.sampling.max_new_tokens,
            max_length=settings.max_length,
        )  # fmt: skip
        order = arrange(
            [len(prompt.ids) for prompt in prompts],
            steps=settings.steps * settings.gradient_accumulation,
            batch_size=settings.batch_size,
            seed=job.seed,
        )
        seen = _Seen(session.tokenizer, prompts)
        trainer = _trainer(job, session, teacher, order, seen)
        return finish(job, session, trainer, proof=seen.proof)


class _Seen:
    """Proof on the very batches that are learned: a prompt of serving in front, everything behind it the
    student's own words up to its end of turn."""

    def __init__(self, tokenizer: Any, prompts: Sequence[Prompt]) -> None:
        self._tokenizer = tokenizer
        self.prompts = prompts
        self._known = {prompt.ids for prompt in prompts}
        self._rows: set[tuple[int, ...]] = set()
        self.proof: dict[str, Any] = {"rows": 0, "supervised_tokens": 0, "unsupervised_tokens": 0}

    def check(self, inputs: dict[str, Any]) -> None:
        """Raises MaskBroken."""
        names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
        for sample in zip(*(inputs[name].tolist() for name in names), strict=True):
            prompt, before, said, learned = sample
            asked = tuple(token for token, on in zip(prompt, before, strict=True) if on)
            words = [token for token, on in zip(said, learned, strict=True) if on]
            if asked not in self._known:
                raise MaskBroken("the student was asked something else than serving would ask")
            if not words or learned != sorted(learned, reverse=True):
                raise MaskBroken("what is learned is not one piece behind the prompt")
            if self._tokenizer.eos_token_id in words[:-1]:
                raise MaskBroken("words behind the end of turn are learned")
            self._rows.add(asked)
            self.proof["rows"] = len(self._rows)
            self.proof["supervised_tokens"] += len(words)
            self.proof["unsupervised_tokens"] += len(asked)
            self.proof.setdefault("sample_prompt", decode(self._tokenizer, asked))
            self.proof.setdefault("sample_answer", decode(self._tokenizer, words))


def _trainer(
    job: Job[Any, Any], session: Session, teacher: OpenTeacher, order: Sequence[int], seen: _Seen
) -> Any:
    with needed_libraries():
        from datasets import Dataset
        from trl import DistillationConfig, DistillationTrainer

    settings: DistillSettings = job.settings

    class Trainer(DistillationTrainer):  # type: ignore[misc]  # trl is not followed, so it is Any
        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            """Rendered and checked already; TRL would render without the case's tools."""
            return [list(seen.prompts[int(place)].ids) for place in prompts], None, {}

        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            seen.check(inputs)
            return super().compute_loss(model, inputs, *rest, **more)

    config = DistillationConfig(
        **arguments(job, session),
        beta=settings.divergence,
        temperature=settings.temperature,
        top_p=settings.sampling.top_p,
        max_completion_length=settings.sampling.max_new_tokens,
        shuffle_dataset=False,
    )
    trainer = Trainer(
        model=session.model,
        teacher_model=teacher.model,
        args=config,
        train_dataset=Dataset.from_dict({"prompt": [str(place) for place in order]}),
        processing_class=session.tokenizer,
        peft_config=session.peft_config,
    )
    # TRL draws at the temperature by which it divides the logits that it compares.
    trainer.generation_config.temperature = settings.sampling.temperature
    return trainer
