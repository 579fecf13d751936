"""Where vLLM is wrapped: a vLLM that the wrappers would not reach does not start. Without a vLLM."""

import inspect
import sys
from types import ModuleType
from typing import Any

import pytest

from server.engines.errors import EngineUnguarded
from server.engines.plugin import hooks

WRAPPERS: dict[str, hooks.Wrapper] = {
    f"{owner}.{method}": lambda original: lambda *given: ("watched", original(*given))
    for _, owner, method in hooks.EXPECTED
}
KEEPER = "vllm.lora.worker_manager"
MIXIN = "vllm.v1.worker.lora_model_runner_mixin"


def _method(parameters: tuple[str, ...]) -> Any:
    def method(*given: Any) -> Any:
        return given

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature([inspect.Parameter(name, kind) for name in parameters])
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The modules that are wrapped, by name, in the shape that is expected."""
    modules: dict[str, Any] = {
        name: ModuleType(name) for name in (MIXIN, *(key[0] for key in hooks.EXPECTED))
    }
    keeper = modules[KEEPER]
    keeper.WorkerLoRAManager = type("WorkerLoRAManager", (), {})
    keeper.LRUCacheWorkerLoRAManager = type("LRUCacheWorkerLoRAManager", (keeper.WorkerLoRAManager,), {})
    modules[MIXIN].LRUCacheWorkerLoRAManager = keeper.LRUCacheWorkerLoRAManager
    for (name, owner, method), parameters in hooks.EXPECTED.items():
        if not hasattr(modules[name], owner):
            setattr(modules[name], owner, type(owner, (), {}))
        setattr(getattr(modules[name], owner), method, _method(parameters))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules


def _wrapped(vllm: dict[str, Any]) -> set[bool]:
    return {
        hasattr(getattr(vllm[name], owner).__dict__[method], "__wrapped__")
        for name, owner, method in hooks.EXPECTED
    }


def test_everything_expected_is_wrapped_and_what_is_used_inherits_it(vllm: dict[str, Any]) -> None:
    hooks.wrap(WRAPPERS)
    assert _wrapped(vllm) == {True}
    keeper = vllm[MIXIN].LRUCacheWorkerLoRAManager()
    assert keeper._load_adapter("request") == ("watched", (keeper, "request"))


@pytest.mark.parametrize("method", ["_load_adapter", "set_active_adapters"])
def test_a_class_that_goes_around_a_wrapped_method_is_refused(vllm: dict[str, Any], method: str) -> None:
    setattr(vllm[KEEPER].LRUCacheWorkerLoRAManager, method, lambda *given: "unwatched")
    with pytest.raises(EngineUnguarded, match=f"has a {method} of its own"):
        hooks.wrap(WRAPPERS)
    assert _wrapped(vllm) == {False}


def test_runners_that_keep_their_adapters_in_another_class_are_refused(vllm: dict[str, Any]) -> None:
    vllm[MIXIN].LRUCacheWorkerLoRAManager = type("Another", (vllm[KEEPER].WorkerLoRAManager,), {})
    with pytest.raises(EngineUnguarded, match="keep their adapters elsewhere"):
        hooks.wrap(WRAPPERS)
    assert _wrapped(vllm) == {False}


@pytest.mark.parametrize("key", list(hooks.EXPECTED), ids=lambda key: f"{key[1]}.{key[2]}")
def test_a_method_that_is_gone_or_takes_something_else_is_refused(
    vllm: dict[str, Any], key: tuple[str, str, str]
) -> None:
    name, owner, method = key
    target = getattr(vllm[name], owner)
    setattr(target, method, _method((*hooks.EXPECTED[key], "more")))
    with pytest.raises(EngineUnguarded, match=f"{owner}.{method} takes .*, more in this vLLM"):
        hooks.wrap(WRAPPERS)
    delattr(target, method)
    with pytest.raises(EngineUnguarded, match=f"no {owner}.{method} to watch"):
        hooks.wrap(WRAPPERS)
