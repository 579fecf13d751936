"""A training that was killed goes on from its last whole snapshot, and gives the same bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from registry.digests import Digest
from tests.support.tiny_model import write_recipe
from trainer.events import Note, StageAdvanced, ignore
from trainer.folder import METRICS
from trainer.learning.snapshots import Snapshots
from trainer.plan import Planned, make_plan
from trainer.recipes import load_recipe
from trainer.run import train
from trainer.testing import InMemoryCatalog

KILLED = """\
import os, signal, sys
from pathlib import Path
from registry.bases import describe
from trainer.events import StageAdvanced
from trainer.learning.contract import make_contract
from trainer.plan import make_plan
from trainer.recipes import load_recipe
from trainer.run import train
from trainer.testing import InMemoryCatalog

base_folder, recipe, place, last = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
base = describe(base_folder, name="tiny", revision="r1")
catalog = InMemoryCatalog(tenants=frozenset({"bank_a"}))
catalog.register_base(base, make_contract(base.identity(), base_folder))

def sink(event):
    if isinstance(event, StageAdvanced) and event.stage == "learn" and event.done == last:
        os.kill(os.getpid(), signal.SIGKILL)

planned = make_plan(load_recipe(recipe), catalog=catalog, base_folder=base_folder)
train(planned, base_folder=base_folder, run_folder=place, sink=sink, snapshot_every=0)
"""


def planned_in(folder: Path, catalog: InMemoryCatalog, base_folder: Path) -> Planned:
    recipe = write_recipe(folder)
    return make_plan(load_recipe(recipe), catalog=catalog, base_folder=base_folder)


def digests(adapter: Path) -> list[Digest]:
    return [Digest.of_file(path) for path in sorted(adapter.iterdir())]


def test_a_killed_training_ends_in_the_bytes_of_an_uninterrupted_one(
    catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path
) -> None:
    planned = planned_in(tmp_path / "recipe", catalog, base_folder)
    whole = train(planned, base_folder=base_folder, run_folder=tmp_path / "whole", sink=ignore)
    command = [sys.executable, "-c", KILLED, str(base_folder), str(tmp_path / "recipe" / "recipe.yaml")]
    place = tmp_path / "killed"
    died = subprocess.run([*command, str(place), "4"], capture_output=True, timeout=100, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-500:]
    assert (place / "scratch" / "snapshots" / "checkpoint-3" / "whole.json").is_file()
    steps: list[int] = []

    def sink(event: object) -> None:
        if isinstance(event, StageAdvanced) and event.stage == "learn":
            steps.append(event.done)
        assert not isinstance(event, Note)

    again = train(planned, base_folder=base_folder, run_folder=place, sink=sink)
    assert steps == [4, 5, 6]  # not from the beginning
    assert digests(again.adapter) == digests(whole.adapter)
    lines = [(tmp_path / name / METRICS).read_text().splitlines() for name in ("whole", "killed")]
    assert [json.loads(line) for line in lines[1]] == [json.loads(line) for line in lines[0]]
    assert not (place / "scratch").exists()


@pytest.mark.parametrize("damage", ["no mark", "a changed file", "a missing file"])
def test_a_snapshot_that_is_not_whole_is_not_used(tmp_path: Path, damage: str) -> None:
    snapshots = Snapshots(tmp_path, every=0)
    for step in (3, 12):
        place = tmp_path / f"checkpoint-{step}"
        place.mkdir()
        for name in ("adapter_model.safetensors", "trainer_state.json"):
            (place / name).write_text(f"{name} {step}")
        snapshots.mark(place)
        if step == 3:
            # Only the newest is kept; a second copy stands in for the one before.
            kept = {file.name: file.read_bytes() for file in place.iterdir()}
    assert snapshots.latest() == str(tmp_path / "checkpoint-12")
    assert not (tmp_path / "checkpoint-3").exists()
    older = tmp_path / "checkpoint-3"
    older.mkdir()
    for name, data in kept.items():
        (older / name).write_bytes(data)
    newest = tmp_path / "checkpoint-12"
    if damage == "no mark":
        (newest / "whole.json").unlink()
    elif damage == "a changed file":
        os.truncate(newest / "trainer_state.json", 3)
    else:
        (newest / "adapter_model.safetensors").unlink()
    assert snapshots.latest() == str(older)
    assert not newest.exists()
    assert Snapshots(tmp_path / "nowhere", every=0).latest() is None
