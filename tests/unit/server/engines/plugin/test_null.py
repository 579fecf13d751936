"""The guard's own look at the null adapter, which no manifest vouches for. Without a vLLM."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server.engines import guarded
from server.engines.null import null_adapter
from server.engines.plugin.guard import Guard
from server.engines.plugin.reading import NULL
from server.engines.plugin.spec import GuardSpec
from server.engines.plugin.violations import GuardViolation
from tests.support.adapters import tiny_base


@dataclass(frozen=True)
class Asked:
    """vLLM's request for an adapter, as far as the guard reads it."""

    lora_path: str
    lora_name: str = NULL
    lora_int_id: int = 1


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    structs = ModuleType("msgspec.structs")
    structs.replace = replace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "msgspec.structs", structs)  # it comes with vLLM alone
    folder = tmp_path / "cache" / NULL
    folder.mkdir(parents=True)
    for name, data in null_adapter(tiny_base()[0]).items():
        (folder / name).write_bytes(data)
    return Asked(str(folder))


def _loaded(tmp_path: Path, asked: Asked, *layers: Any) -> Any:
    """What the guard makes of a load whose B are ``layers`` once vLLM has parsed it."""
    parsed = SimpleNamespace(loras={str(at): SimpleNamespace(lora_b=each) for at, each in enumerate(layers)})
    reports = tmp_path / "reports"
    reports.mkdir()
    guard = Guard(GuardSpec(reports=str(reports), cache=str(tmp_path / "cache"), isolate_base=True))
    load = guard.wrappers()["WorkerLoRAManager._load_adapter"](lambda keeper, request: parsed)
    return load(object(), asked)


def test_the_null_adapter_is_loaded_when_every_b_is_zero(tmp_path: Path, asked: Asked) -> None:
    adapter = _loaded(tmp_path, asked, np.zeros(4), np.zeros(2))
    assert adapter.tenon_reading.name == NULL
    assert guarded.totals(tmp_path / "reports").loads == 1


@pytest.mark.parametrize(
    "layers",
    [(np.zeros(4), np.array([0.0, 1e-30])), (np.zeros(4), None), ()],
    ids=["one number", "a layer without B", "no layer at all"],
)
def test_a_null_adapter_with_an_effect_stops_the_engine(
    tmp_path: Path, asked: Asked, layers: tuple[Any, ...]
) -> None:
    """All of the agent's questions to the base go through it: with an effect, they prove another adapter."""
    with pytest.raises(GuardViolation):
        _loaded(tmp_path, asked, *layers)
    assert [(each.kind, each.names) for each in guarded.found(tmp_path / "reports")] == [("effect", (NULL,))]
    assert guarded.totals(tmp_path / "reports").loads == 0
