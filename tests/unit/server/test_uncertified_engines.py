"""An engine that the mix-up suite has not seen: who may allow it, and how it is put through the suite."""

from pathlib import Path

import pytest

from bench.mixup.__main__ import RESULT, result_of
from server.assembly import stack
from server.assembly.catalog import initialise
from server.engines.errors import EngineUncertified
from server.mixup import ours, starting
from server.mixup.starting import Recipe
from tests.journeys.commands import tenon_here

OPTIONS = stack.EngineOptions(base="base", base_name="demo", device="cuda", dtype="bfloat16")
ALLOWED = "allow_uncertified_engine"


def told(folder: Path, options: stack.EngineOptions) -> list[dict[str, str]]:
    """The settings of two engines."""
    plan = stack.launches(initialise(folder / "workspace"), options, stack.Ports(more=((1, 2),)))
    return [each.settings for each in plan.together[1]]


def test_nothing_is_allowed_that_nobody_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"TENON_{ALLOWED.upper()}", raising=False)
    assert {each[ALLOWED] for each in told(tmp_path, OPTIONS)} == {"0"}


def test_the_option_reaches_every_engine(tmp_path: Path) -> None:
    options = stack.EngineOptions(base="base", base_name="demo", allow_uncertified=True)
    assert {each[ALLOWED] for each in told(tmp_path, options)} == {"1"}


def test_the_exported_setting_reaches_every_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TENON_{ALLOWED.upper()}", "true")
    assert {each[ALLOWED] for each in told(tmp_path, OPTIONS)} == {"1"}


def test_tenon_up_hands_the_option_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    initialise(tmp_path)
    given: list[stack.EngineOptions] = []

    def started(workspace: object, *, engine: stack.EngineOptions, **_: object) -> None:
        given.append(engine)
        raise SystemExit(9)

    monkeypatch.setattr(stack, "start", started)
    for more in ([], ["--allow-uncertified"]):
        assert tenon_here("up", "--device", "cuda", "--fake-engine", *more, "-w", str(tmp_path)).code == 9
    assert [each.allow_uncertified for each in given] == [False, True]


def test_the_refusal_names_every_way_out() -> None:
    for way in (
        "tenon mixup run --start ours --device",
        "tenon up --allow-uncertified",
        "engine.allowUncertified=true",
        "TENON_ALLOW_UNCERTIFIED_ENGINE=true",
    ):
        assert way in EngineUncertified.hint


def test_the_suite_starts_what_it_is_to_certify_on_either_device() -> None:
    cpu, cuda = (ours.options(Recipe(base=Path("base"), device=device), "demo") for device in ("cpu", "cuda"))
    assert (cpu.device, cpu.dtype, cpu.gpu_memory_utilization) == ("cpu", "float32", None)
    assert (cuda.device, cuda.dtype, cuda.gpu_memory_utilization) == ("cuda", "bfloat16", 0.4)
    assert cpu.allow_uncertified
    assert cuda.allow_uncertified


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("kind", "module"), [("ours", ours), ("bare", starting)])
def test_mixup_run_starts_on_the_device_that_is_given(
    device: str, kind: str, module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Recipe] = []

    def started(recipe: Recipe, *_: object, **__: object) -> None:
        given.append(recipe)
        raise SystemExit(9)

    monkeypatch.setattr(module, "started" if kind == "ours" else "vllm", started)
    done = tenon_here("mixup", "run", "--start", kind, "--device", device)
    assert done.code == 9, done.err
    assert given[0].device == device
    assert ("--enforce-eager" in given[0].arguments(1)) is (device == "cpu")


def test_a_running_server_has_its_device_already() -> None:
    done = tenon_here("mixup", "run", "--url", "http://127.0.0.1:9", "--device", "cuda")
    assert done.code != 0
    assert "--device goes with --start" in done.err


def test_a_gpus_result_leaves_the_cpus_as_it_is() -> None:
    assert result_of("cpu") == RESULT
    assert result_of("cuda") == RESULT.with_name("mixup-cuda.json")
