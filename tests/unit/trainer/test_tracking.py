"""Experiment trackers are told every step and change nothing of the adapter."""

import json
import sys
from importlib import import_module
from pathlib import Path

import pytest

from registry.digests import Digest
from tests.support.tiny_model import write_recipe
from trainer.errors import LibrariesMissing
from trainer.events import ignore
from trainer.folder import METRICS, TRACKING
from trainer.plan import Planned, make_plan
from trainer.recipes import load_recipe
from trainer.run import train
from trainer.testing import InMemoryCatalog
from trainer.trackers import Tracker


@pytest.fixture
def planned(catalog: InMemoryCatalog, base_folder: Path, tmp_path: Path) -> Planned:
    recipe = load_recipe(write_recipe(tmp_path / "recipe"), overrides=["sft.steps=3", "lora.dropout=0.1"])
    return make_plan(recipe, catalog=catalog, base_folder=base_folder)


def test_tensorboard_has_every_step_and_the_adapter_is_the_same(
    planned: Planned, base_folder: Path, tmp_path: Path
) -> None:
    events = import_module("tensorboard.backend.event_processing.event_accumulator")  # it has no types
    folders = {}
    for name, trackers in (("plain", ()), ("told", (Tracker.TENSORBOARD,))):
        folders[name] = tmp_path / name
        train(planned, base_folder=base_folder, run_folder=folders[name], sink=ignore, trackers=trackers)
    told = events.EventAccumulator(str(folders["told"] / TRACKING)).Reload()
    lines = [json.loads(line) for line in (folders["told"] / METRICS).read_text().splitlines()]
    seen = [(event.step, event.value) for event in told.Scalars("train/loss")]
    assert seen == [(line["step"], pytest.approx(line["loss"], rel=1e-5)) for line in lines]
    assert len(seen) == 3
    assert not (folders["plain"] / TRACKING).exists()
    for file in ("adapter/adapter_model.safetensors", "adapter/adapter_config.json", METRICS, "plan.json"):
        assert Digest.of_file(folders["plain"] / file) == Digest.of_file(folders["told"] / file), file


@pytest.mark.parametrize("tracker", list(Tracker))
def test_a_tracker_that_is_not_installed_says_what_to_install(
    tracker: Tracker, planned: Planned, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tracker.value, None)  # as if it were not there
    with pytest.raises(LibrariesMissing, match=f"--track {tracker}") as missing:
        train(planned, base_folder=base_folder, run_folder=tmp_path / "run", sink=ignore, trackers=(tracker,))
    assert missing.value.advice == f"install it with: pip install {tracker}"
