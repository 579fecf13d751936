"""A teacher whose weights are at hand, ready to be read and never to be trained."""

from dataclasses import dataclass
from typing import Any

from trainer.errors import VocabularyDiffers
from trainer.learning.base import load_model, load_tokenizer, needed_libraries
from trainer.learning.job import Job
from trainer.learning.session import Session


@dataclass(frozen=True, slots=True)
class OpenTeacher:
    model: Any
    tokenizer: Any


def load_teacher(job: Job[Any, Any], session: Session) -> OpenTeacher:
    """The base with the adapter merged into it in float32: one plain model, as fast as a base."""
    teacher = job.teacher
    if teacher is None or teacher.base_folder is None:
        raise ValueError("a white-box teacher needs weights")
    with needed_libraries():
        import torch
        from peft import PeftModel
    model = load_model(teacher.base_folder, device=session.device)
    if teacher.adapter_folder is not None:
        model = PeftModel.from_pretrained(model, str(teacher.adapter_folder)).merge_and_unload()
    model.requires_grad_(False)  # noqa: FBT003 - torch's own signature
    half = session.device == "cuda"
    return OpenTeacher(
        (model.to(torch.bfloat16) if half else model).eval(), load_tokenizer(teacher.base_folder)
    )


def refuse_other_vocabulary(session: Session, teacher: OpenTeacher) -> None:
    """Raise VocabularyDiffers unless token 17 means the same to both: TRL compares only how many there are,
    and would teach nonsense when they are as many but others."""
    sizes = session.model.config.vocab_size, teacher.model.config.vocab_size
    if sizes[0] != sizes[1]:
        raise VocabularyDiffers(f"the student has {sizes[0]} tokens and the teacher {sizes[1]}", sizes=sizes)
    own, other = session.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if differing := sum(other.get(token) != place for token, place in own.items()):
        raise VocabularyDiffers(
            f"student and teacher have {sizes[0]} tokens each, but {differing} of them differ",
            differing=differing,
        )
