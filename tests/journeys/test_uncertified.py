"""`tenon up` on a device that the mix-up suite has not seen; the engine is the fake, so no GPU is needed."""

from pathlib import Path

import pytest

from server.assembly import stack
from tests.journeys.commands import tenon_here
from tests.journeys.conftest import prepare

pytestmark = pytest.mark.slow


def test_it_is_refused_with_the_option_that_allows_it(tmp_path: Path) -> None:
    world = prepare(tmp_path)
    where = ["--port", str(stack.Ports.free().vllm), "-w", str(world.workspace.root)]
    command = ["up", "--device", "cuda", "--fake-engine", "--detach", *where]
    refused = tenon_here(*command)
    assert refused.code != 0
    assert "[engine_uncertified]" in refused.err
    assert "tenon up --allow-uncertified" in refused.err
    try:
        allowed = tenon_here(*command, "--allow-uncertified")
        assert allowed.code == 0, allowed.err
    finally:
        tenon_here("down", "-w", str(world.workspace.root))
