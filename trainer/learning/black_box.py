"""Sequence-level distillation (arXiv:1606.07947): whatever of a teacher's answers the verifiers accept is
learned as if people had written it. The teacher may be any OpenAI-compatible server."""

from collections.abc import Callable, Sequence

from trainer.answers_file import AnswersFile
from trainer.datasets import Case, Conversation
from trainer.errors import TooFewAccepted
from trainer.learning.base import load_tokenizer, surroundings
from trainer.learning.job import Job, Learned
from trainer.learning.sampling import draw
from trainer.learning.session import open_session
from trainer.learning.sft import imitate
from trainer.recipes.methods import BlackBoxSettings
from trainer.selection import Tally, select, try_answers

ANSWERS = "answers.jsonl"


def learn(job: Job[BlackBoxSettings, Case]) -> Learned:
    """Raises EndpointUnreachable and EndpointRefused (answers so far are kept), TooFewAccepted,
    VerifierFailed, and what supervised learning raises."""
    settings = job.settings
    if job.teacher is None:
        raise ValueError("there is nobody to ask")
    job.note(f"asking the teacher for {len(job.rows) * settings.samples} answers")
    with AnswersFile(job.scratch / ANSWERS) as kept:
        replies = draw(
            job.teacher, job.rows, file=job.file, sampling=settings.sampling, samples=settings.samples,
            seed=job.seed, max_length=settings.max_length, kept=kept, advanced=tenths(job.note),
        )  # fmt: skip
        answers = kept.proof()
    tokenizer = load_tokenizer(job.base_folder)
    tried = try_answers(job.rewards, job.rows, replies, control_tokens=tokenizer.all_special_tokens)
    chosen, tally = select(tried, job.rewards, keep=settings.keep)
    job.note(str(tally))
    enough(chosen, tally, settings.least)
    with surroundings(seed=job.seed):
        learned = imitate(job, open_session(job), chosen)
    return Learned(learned.folder, {**learned.proof, "teacher": tally.as_json(), "answers": answers})


def enough(chosen: Sequence[Conversation], tally: Tally, least: int) -> None:
    """Raise TooFewAccepted."""
    if len(chosen) < least:
        raise TooFewAccepted(
            f"{len(chosen)} answers are left to learn, and {least} is the least: {tally}", **tally.as_json()
        )


def tenths(note: Callable[[str], None]) -> Callable[[int, int], None]:
    """Ten sentences instead of thousands."""
    told = 0

    def advanced(done: int, total: int) -> None:
        nonlocal told
        if total and (reached := 10 * done // total) > told:
            told = reached
            note(f"{done} of {total} answers")

    return advanced
