"""What the guard writes and the agent reads."""

import asyncio
import os
from pathlib import Path

import pytest

from registry.errors import InvalidDocument
from server.engines import guarded
from server.engines.errors import EngineUnguarded
from server.engines.plugin.counters import FIELDS, Counters
from server.engines.plugin.guard import Guard, install
from server.engines.plugin.hooks import EXPECTED, require
from server.engines.plugin.spec import GuardSpec
from server.engines.plugin.violations import Violation, write

VIOLATION = Violation(
    kind="row", what="x", at="2026-01-02T00:00:00+00:00", step=3, names=("tenon-a",), slot=1
)


def test_counters_of_all_workers_are_added_while_they_are_written(tmp_path: Path) -> None:
    first, second = Counters(tmp_path / "1.counters"), Counters(tmp_path / "2.counters")
    for place, field in enumerate(FIELDS):
        first.add(field, place)
        second.add(field)
    seen = guarded.totals(tmp_path)
    assert seen.workers == 2
    assert [getattr(seen, field) for field in FIELDS] == [place + 1 for place in range(len(FIELDS))]
    first.close()
    second.close()


def test_a_boot_without_steps_loads_or_workers_is_not_guarded(tmp_path: Path) -> None:
    with pytest.raises(EngineUnguarded):
        guarded.prove(tmp_path, loads=0)
    worker = Counters(tmp_path / "1.counters")
    with pytest.raises(EngineUnguarded):
        guarded.prove(tmp_path, loads=0)
    worker.add("steps")
    assert guarded.prove(tmp_path, loads=0).steps == 1
    worker.add("checked")
    with pytest.raises(EngineUnguarded):
        guarded.prove(tmp_path, loads=1)
    worker.add("loads")
    assert guarded.prove(tmp_path, loads=1).loads == 1
    with pytest.raises(EngineUnguarded):
        guarded.prove(tmp_path, loads=1, workers=2)
    worker.close()


def test_counters_of_others_are_not_believed(tmp_path: Path) -> None:
    (tmp_path / "1.counters").write_bytes(b"0" * 88)
    with pytest.raises(EngineUnguarded):
        guarded.totals(tmp_path)


def test_violations_are_read_back_oldest_first(tmp_path: Path) -> None:
    later = VIOLATION.model_copy(update={"at": "2026-01-02T00:00:01+00:00"})
    write(tmp_path, later)
    write(tmp_path, VIOLATION)
    assert guarded.found(tmp_path) == (VIOLATION, later)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    (tmp_path / "x.violation.json").write_bytes(b"{")
    assert len(guarded.found(tmp_path)) == 3


def test_only_what_was_found_is_kept(tmp_path: Path) -> None:
    for name in ("quiet", "loud"):
        guarded.prepare(tmp_path / name, cache=tmp_path, isolate_base=True)
    write(tmp_path / "loud", VIOLATION)
    for name in ("quiet", "loud"):
        guarded.tidy(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["loud"]


async def test_a_violation_is_heard_of_while_waiting_for_it(tmp_path: Path) -> None:
    waiting = asyncio.create_task(guarded.violated(tmp_path, poll=0.001))
    await asyncio.sleep(0)
    assert not waiting.done()
    write(tmp_path, VIOLATION)
    assert await waiting == VIOLATION


def test_the_spec_is_read_strictly(tmp_path: Path) -> None:
    path = guarded.prepare(tmp_path / "boot", cache=tmp_path / "cache", isolate_base=True)
    spec = GuardSpec.read(path)
    assert (spec.reports, spec.cache) == (str(tmp_path / "boot"), str(tmp_path / "cache"))
    with pytest.raises(FileExistsError):
        guarded.prepare(tmp_path / "boot", cache=tmp_path, isolate_base=True)
    for wrong in (b"", b"{}", path.read_bytes()[:-1] + b',"more":1}'):
        path.write_bytes(wrong)
        with pytest.raises(InvalidDocument):
            GuardSpec.read(path)
    with pytest.raises(InvalidDocument):
        GuardSpec.build({"reports": "here", "cache": "/c", "isolate_base": True})


def test_without_a_spec_the_engine_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "another,tenon_guard")
    monkeypatch.delenv("TENON_GUARD", raising=False)
    with pytest.raises(EngineUnguarded, match="TENON_GUARD"):
        install()
    monkeypatch.setenv("TENON_GUARD", str(tmp_path / "none.json"))
    with pytest.raises(EngineUnguarded, match="cannot be read"):
        install()


@pytest.mark.parametrize("named", [None, "", "another", "tenon_guard_of_others"])
def test_a_vllm_that_does_not_name_the_guard_starts_as_ever(
    monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    monkeypatch.delenv("TENON_GUARD", raising=False)
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    if named is not None:
        monkeypatch.setenv("VLLM_PLUGINS", named)
    install()


def test_every_expected_hook_has_a_wrapper() -> None:
    spec = GuardSpec(reports="/nowhere", cache="/nowhere", isolate_base=True)
    assert set(Guard(spec).wrappers()) == {f"{owner}.{method}" for _, owner, method in EXPECTED}


def test_slots_of_another_shape_are_refused() -> None:
    with pytest.raises(EngineUnguarded, match="lora_index_to_id"):
        require(object())


def test_counters_belong_to_one_process(tmp_path: Path) -> None:
    path = tmp_path / f"{os.getpid()}.counters"
    Counters(path).close()
    with pytest.raises(FileExistsError):
        Counters(path)
