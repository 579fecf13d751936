"""One execution of a plan, stage after stage, into a run folder that can be picked up again after a crash."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.digests import Digest
from registry.errors import InvalidDocument
from registry.fingerprint import Fingerprint
from registry.intake import inspect
from trainer.datasets.audit import audit
from trainer.datasets.messages import read_messages
from trainer.effect import explained
from trainer.errors import BaseDiffers, RunChanged, RunNotFinished
from trainer.evaluation.beside import Answers, answers_of
from trainer.evaluation.judges import judge_rows
from trainer.evaluation.run import STAGE as EVALUATE
from trainer.evaluation.run import evaluate
from trainer.events import Note, Progress, StageAdvanced, StageFinished, StageStarted
from trainer.folder import (
    ADAPTER,
    AUDIT,
    EVALUATION,
    FINGERPRINT,
    METRICS,
    PLAN,
    PROOF,
    RAW,
    SAMPLES,
    SCRATCH,
    TRACKING,
    Marker,
    RunFolder,
    StepFigures,
)
from trainer.inputs import START, TEACHER
from trainer.learning.job import Job, TeacherModel
from trainer.methods import METHODS
from trainer.package import package
from trainer.plan import Plan, Planned, check_base
from trainer.recipes.methods import ProcessRewardModelSettings
from trainer.reporting.page import write_report
from trainer.scale import Scale
from trainer.shortages import named_shortages
from trainer.trackers import Tracker
from trainer.trained import TrainedRun, load_run

CHECK, LEARN, PACKAGE, IDENTIFY = "check", "learn", "package", "fingerprint"
STAGES = (CHECK, LEARN, PACKAGE, EVALUATE, IDENTIFY)
_COMPARED = 2000
"""Rows up to which a run looks for near duplicates (1.5 s); ``tenon data audit`` always does."""


def train(
    planned: Planned,
    *,
    base_folder: Path,
    run_folder: Path,
    sink: Progress,
    fresh: bool = False,
    snapshot_every: float = 60.0,
    trackers: tuple[Tracker, ...] = (),
    siblings: Callable[[], Mapping[Digest, Fingerprint]] = dict,
    timer: Callable[[], float] = time.monotonic,
) -> TrainedRun:
    """Compute whatever of the plan ``run_folder`` does not hold yet, and return the finished run.

    A stage is reused when its marker names this plan and its files are unchanged; ``fresh`` reuses nothing.
    Learning is picked up at its last snapshot, of which there is one every ``snapshot_every`` seconds.
    ``siblings``: other versions of the adapter, asked for once it is trained, to be told from.
    Raises RunBusy, BaseDiffers, the leaves of TrainingRefused and IntakeRefused, and TrainingDiverged.
    """
    folder = RunFolder(run_folder)
    with named_shortages(planned.plan.method), folder.locked():
        watching = _Watching(sink, timer, snapshot_every, trackers)
        return _Execution(planned, folder, base_folder, watching, siblings).run(fresh=fresh)


@dataclass(frozen=True, slots=True)
class _Watching:
    """What changes nothing of the result."""

    sink: Progress
    timer: Callable[[], float]
    snapshot_every: float
    trackers: tuple[Tracker, ...]


class _Execution:
    """The stages of one run, in their order."""

    def __init__(
        self,
        planned: Planned,
        folder: RunFolder,
        base_folder: Path,
        watching: _Watching,
        siblings: Callable[[], Mapping[Digest, Fingerprint]],
    ) -> None:
        self._planned = planned
        self._plan = planned.plan
        self._identity = planned.plan.identity()
        self._folder = folder
        self._base_folder = base_folder
        self._watching = watching
        self._siblings = siblings
        self._sink = watching.sink
        self._timer = watching.timer

    def run(self, *, fresh: bool) -> TrainedRun:
        if fresh:
            self._folder.clear()
        elif (known := self._known()) is not None:
            for stage in STAGES:
                self._sink(StageFinished(stage, known.seconds.get(stage, 0.0), reused=True))
            return known
        self._check_base_again()  # the plan may be older than the folder's files
        if self._started_for() != self._identity:
            self._folder.clear()
            self._folder.write(PLAN, self._plan.canonical())
        stages = {
            LEARN: (self._learn, (RAW, METRICS, PROOF)),
            PACKAGE: (self._package, (ADAPTER,)),
            EVALUATE: (self._evaluate, (EVALUATION, SAMPLES)),
            IDENTIFY: (self._identify, (FINGERPRINT,)),
        }
        markers = {CHECK: self._stage(CHECK, self._check, (AUDIT,))}
        markers |= {stage: self._stage(stage, work, names) for stage, (work, names) in stages.items()}
        self._check_base_again()
        self._folder.complete(plan=self._identity, stages=markers)
        run = load_run(self._folder.path, reused=False)
        write_report(run)
        return run

    def _known(self) -> TrainedRun | None:
        try:
            run = load_run(self._folder.path)
        except (RunNotFinished, RunChanged):
            return None
        return run if run.plan.identity() == self._identity else None

    def _started_for(self) -> Digest | None:
        try:
            return Plan.parse((self._folder.path / PLAN).read_bytes()).identity()
        except (OSError, InvalidDocument):
            return None

    def _stage(self, stage: str, work: Callable[[], None], names: Sequence[str]) -> Marker:
        marker = self._folder.finished(stage, plan=self._identity)
        if marker is not None:
            self._sink(StageFinished(stage, marker.seconds.get(stage, 0.0), reused=True))
            return marker
        self._sink(StageStarted(stage))
        began = self._timer()
        work()
        seconds = self._timer() - began
        marker = self._folder.finish(stage, plan=self._identity, names=names, seconds=seconds)
        self._sink(StageFinished(stage, seconds))
        return marker

    def _check_base_again(self) -> None:
        """Each stage loads the base from its folder. Were it replaced in between, the adapter would have been
        trained on one base and measured on another: nothing of such a run may be kept."""
        try:
            check_base(self._planned.base, self._base_folder)
        except BaseDiffers:
            self._folder.clear()
            raise

    def _check(self) -> None:
        from trainer.learning.contract import check_contract

        check_contract(self._planned.contract, self._base_folder)
        train, held_out = self._planned.dataset, self._planned.suite
        found = audit(train, held_out, near=len(train.rows) + len(held_out.rows) <= _COMPARED)
        self._folder.write(AUDIT, found.canonical())
        for finding in found.findings:
            if finding.severity != "note":
                self._sink(Note(CHECK, finding.what))

    def _learn(self) -> None:
        from trainer.learning import methods
        from trainer.learning.spread import learn_together

        planned, settings = self._planned, self._plan.settings
        figures = StepFigures(self._folder)

        def on_step(step: int, measured: dict[str, float]) -> None:
            figures.add(step, measured)
            self._sink(StageAdvanced(LEARN, step, settings.total_steps, measured))

        job: Job[Any, Any] = Job(
            settings=settings,
            rows=planned.dataset.rows,
            file=planned.dataset.name,
            base_folder=self._base_folder,
            lora=self._plan.lora,
            seed=self._plan.seed,
            out=self._folder.path / RAW,
            scratch=self._folder.path / SCRATCH,
            snapshot_every=self._watching.snapshot_every,
            start=None if planned.start is None else planned.start.adapter_folder,
            teacher=planned.teacher,
            rewards=planned.rewards,
            scale=Scale.of(self._plan.environment),
            trackers=self._watching.trackers,
            tracking=self._folder.path / TRACKING,
            on_step=on_step,
            note=lambda text: self._sink(Note(LEARN, text)),
        )
        try:
            if job.scale.processes > 1:
                learned = learn_together(self._plan.method, job)
            else:
                learned = methods.LEARN[self._plan.method](job)
        finally:
            figures.close()
        self._folder.write_json(PROOF, learned.proof)

    def _package(self) -> None:
        package(
            self._folder.path / RAW,
            self._folder.path / ADAPTER,
            base=self._plan.base,
            base_name=self._plan.base_name,
        )
        with explained(self._plan.method, self._folder.read_json(PROOF)):
            inspect(self._folder.path / ADAPTER, base=self._planned.base)

    def _evaluate(self) -> None:
        if METHODS[self._plan.method].scores:
            self._judge()
            return
        evaluation = evaluate(
            self._planned.suite,
            schema=self._planned.schema,
            rewards=self._planned.verifiers,
            base_folder=self._base_folder,
            adapter_folder=self._folder.path / ADAPTER,
            max_new_tokens=self._plan.evaluation.max_new_tokens,
            batch_size=self._plan.evaluation.batch_size,
            sink=self._sink,
            beside=self._beside(),
        )
        if not evaluation.comparison.adapter_active:
            self._sink(Note(EVALUATE, "the adapter changed none of the answers"))
        self._folder.write_json(EVALUATION, evaluation.as_json())
        self._folder.write_json(SAMPLES, evaluation.samples())

    def _beside(self) -> dict[str, Answers]:
        """Whom the adapter is measured against: where it started and whom it imitates."""
        others = {}
        if (start := self._planned.start) is not None:
            others[START] = TeacherModel(self._base_folder, start.adapter_folder)
        if self._planned.teacher is not None:
            others[TEACHER] = self._planned.teacher
        return {
            role: answers_of(
                model,
                max_new_tokens=self._plan.evaluation.max_new_tokens,
                batch_size=self._plan.evaluation.batch_size,
                scratch=self._folder.path / SCRATCH,
                seed=self._plan.seed,
            )
            for role, model in others.items()
        }

    def _judge(self) -> None:
        """A reward model gives no answers: it is measured on the held-out rows' own."""
        settings = self._plan.settings
        separator = settings.separator if isinstance(settings, ProcessRewardModelSettings) else ""
        judgement = judge_rows(
            self._planned.suite,
            base_folder=self._base_folder,
            adapter_folder=self._folder.path / ADAPTER,
            separator=separator,
            batch_size=self._plan.evaluation.batch_size,
            sink=self._sink,
        )
        if not judgement.adapter_active:
            self._sink(Note(EVALUATE, "the adapter changed none of the scores"))
        self._folder.write_json(EVALUATION, judgement.as_json())
        self._folder.write_json(SAMPLES, judgement.samples(separator))

    def _identify(self) -> None:
        from trainer.learning.fingerprint import TenantPrompt, make_fingerprint

        prompts = [
            TenantPrompt(read_messages(sample["messages"])[1], text)
            for sample in _changed(self._folder.read_json(SAMPLES))
            if (text := sample["adapter"]["text"])
        ]
        with explained(self._plan.method, self._folder.read_json(PROOF)):
            fingerprint = make_fingerprint(
                self._plan.base,
                self._base_folder,
                self._folder.path / ADAPTER,
                prompts,
                siblings=self._siblings(),
            )
        self._folder.write(FINGERPRINT, fingerprint.canonical())


def _changed(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those whose answer the adapter changed; all of them when it changed none."""
    return [sample for sample in samples if sample["adapter"]["text"] != sample["base"]["text"]] or samples
