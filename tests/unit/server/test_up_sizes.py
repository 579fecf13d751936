"""What a boot is sized for, from the command line to every engine's settings."""

from pathlib import Path

import pytest

from server.assembly import stack
from server.assembly.catalog import initialise
from tests.journeys.commands import tenon_here


def test_tenon_up_tells_every_engine_what_it_is_sized_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = initialise(tmp_path)
    given: list[stack.EngineOptions] = []

    def started(place: object, *, engine: stack.EngineOptions, **_: object) -> None:
        given.append(engine)
        raise SystemExit(9)

    monkeypatch.setattr(stack, "start", started)
    for more in ([], ["--lora-sizes", "bound"]):
        assert tenon_here("up", "--fake-engine", "--engines", "2", *more, "-w", str(tmp_path)).code == 9
    told = [stack.launches(workspace, each, stack.Ports(more=((1, 2),))).together[1] for each in given]
    assert [
        [(each.settings["lora_sizes"], each.settings["pool_size"]) for each in engines] for engines in told
    ] == [[("wanted", "2")] * 2, [("bound", "2")] * 2]
    alone = stack.launches(workspace, given[0], stack.Ports()).together[1]
    assert [each.settings["pool_size"] for each in alone] == ["1"]
