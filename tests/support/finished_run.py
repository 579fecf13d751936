"""The folder of a run that is finished, without the training: what reports and tables read."""

import json
from pathlib import Path
from typing import Final, Literal, cast

from registry.digests import Digest
from registry.evidence import GatePolicy, Metric
from registry.fingerprint import Fingerprint
from registry.manifests import DataRef
from trainer.folder import EVALUATION, METRICS, PROOF, SAMPLES
from trainer.learning.monitors import Monitor
from trainer.plan import Plan, PlannedEvaluation
from trainer.recipes import LoraSettings, SftSettings
from trainer.trained import TrainedRun

ROWS: Final[dict[Literal["train", "evaluation"], int]] = {"train": 400, "evaluation": 96}
ALARMED: Final = 5
DRIFT: Final = "answers became 53% shorter (50 -> 23 tokens)"
"""The run's one alarm: its step, and how its text begins."""


def metrics(policy: float, n: int = 96) -> dict[str, Metric]:
    def share(value: float) -> Metric:
        return Metric(value=value, n=n, stderr=(value * (1 - value) / n) ** 0.5)

    words = Metric(value=31.5, n=n, stderr=1.25)
    return {"policy": share(policy), "valid_json": share(0.99), "words": words}


def run_in(
    folder: Path, *, policy: float = 0.9, rank: int = 8, answer: str = "after", seed: int = 1
) -> TrainedRun:
    folder.mkdir(parents=True)
    steps = [
        {"step": n, "loss": 2.0 / n, "learning_rate": 1e-3, "gradient_norm": 1.0 / n} for n in range(1, 9)
    ]
    (folder / METRICS).write_text("".join(json.dumps(step) + "\n" for step in steps))
    monitor = Monitor((), lambda text: None)
    for step in range(1, 7):
        monitor.saw(step, {"length": 50.0 if step < 4 else 10.0})
    (folder / PROOF).write_text(json.dumps({"rows": 400, **monitor.proof()}))
    (folder / EVALUATION).write_text(json.dumps({"metrics": {"policy": {}}, "by_tag": {}}))
    samples = [
        {
            "id": "a", "messages": [{"role": "user", "content": f"question {answer}"}], "tags": [],
            "base": {"text": f"before {answer}", "scores": {}}, "adapter": {"text": answer, "scores": {}},
        }
    ]  # fmt: skip
    (folder / SAMPLES).write_text(json.dumps(samples))
    digest = Digest.of(b"x")
    data = tuple(DataRef(role=role, digest=digest, rows=rows) for role, rows in ROWS.items())
    plan = Plan(
        tenant="bank_a", adapter="assistant", method="sft", seed=seed, base=digest, base_name="demo",
        recipe=digest, data=data, inputs={}, parent=None, lora=LoraSettings(rank=rank),
        settings=SftSettings(),
        evaluation=PlannedEvaluation(max_new_tokens=8, batch_size=4, answer_schema=None), gate=GatePolicy(),
        environment={"torch": "2.13"},
    )  # fmt: skip
    return TrainedRun(
        plan=plan, folder=folder, fingerprint=cast("Fingerprint", None), metrics=metrics(policy),
        baseline=metrics(0.4), adapter_active=True, seconds={"learn": 30.25}, reused=False,
    )  # fmt: skip
