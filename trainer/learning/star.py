"""Self-training: the model answers, the verifiers choose, the model learns what they chose, and again.

STaR (arXiv:2203.14465) trains every round from the start, ReST (arXiv:2308.08998) goes on from the round
before. Each finished round lies in the scratch folder: after a crash it is neither drawn nor learned again.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from registry import canonical
from trainer.answers_file import AnswersFile
from trainer.datasets import Case
from trainer.learning.base import load_tokenizer, surroundings
from trainer.learning.black_box import ANSWERS, enough, tenths
from trainer.learning.job import Job, Learned, TeacherModel
from trainer.learning.sampling import draw
from trainer.learning.session import open_session
from trainer.learning.sft import imitate
from trainer.recipes.methods import StarSettings
from trainer.selection import select, try_answers

_PROOF = "proof.json"


def learn(job: Job[StarSettings, Case]) -> Learned:
    """Raises TooFewAccepted, VerifierFailed, and what sampling and supervised learning raise."""
    adapter = job.start
    rounds: list[dict[str, Any]] = []
    for number in range(job.settings.rounds):
        folder = job.scratch / f"round-{number + 1}"
        proof = _finished(folder)
        if proof is None:
            proof = _round(job, number, folder, adapter)
        rounds.append(proof)
        adapter = folder / "adapter"
    if adapter is None:
        raise ValueError("self-training takes at least one round")
    job.out.mkdir(parents=True, exist_ok=True)
    for file in sorted(adapter.iterdir()):
        (job.out / file.name).write_bytes(file.read_bytes())
    return Learned(job.out, {**rounds[-1], "rounds": [one["answers"] for one in rounds]})


def _round(job: Job[StarSettings, Case], number: int, folder: Path, adapter: Path | None) -> dict[str, Any]:
    """Answers of the model as it is, and a model that has learned the accepted ones."""
    settings = job.settings
    seed = job.seed + number
    job.note(f"round {number + 1}: drawing {len(job.rows) * settings.samples} answers")
    with AnswersFile(folder / ANSWERS) as kept:
        replies = draw(
            TeacherModel(job.base_folder, adapter), job.rows, file=job.file, sampling=settings.sampling,
            samples=settings.samples, seed=seed, max_length=settings.max_length, kept=kept,
            advanced=tenths(job.note),
        )  # fmt: skip
    tokenizer = load_tokenizer(job.base_folder)
    tried = try_answers(job.rewards, job.rows, replies, control_tokens=tokenizer.all_special_tokens)
    chosen, tally = select(tried, job.rewards, keep=settings.keep, pass_rate=settings.pass_rate)
    job.note(f"round {number + 1}: {tally}")
    enough(chosen, tally, settings.least)
    before = number * settings.steps
    own = replace(
        job,
        out=folder / "adapter",
        scratch=folder,
        seed=seed,
        start=job.start if settings.fresh else adapter,
        on_step=lambda step, figures: job.on_step(before + step, figures),
    )
    with surroundings(seed=seed):
        learned = imitate(own, open_session(own), chosen)
    proof = {**learned.proof, "answers": tally.as_json()}
    temporary = folder / f".{_PROOF}.part"
    temporary.write_bytes(canonical.encode(proof))
    temporary.replace(folder / _PROOF)  # the last thing of a round
    return proof


def _finished(folder: Path) -> dict[str, Any] | None:
    try:
        proof: dict[str, Any] = canonical.decode((folder / _PROOF).read_bytes())
    except OSError:
        return None
    return proof
