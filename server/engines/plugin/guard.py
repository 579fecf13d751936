"""The entry point ``tenon_guard`` of vLLM's group ``vllm.general_plugins``.

vLLM logs and forgets a plugin that cannot be imported, so this module imports nothing of vLLM: all that may
fail happens in :func:`install`, whose exceptions end the start. That the hooks really ran is for the agent to
see in the counters (``server.engines.guarded.prove``); a plugin that was never called cannot say so.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from registry.errors import InvalidDocument
from server.engines.errors import EngineUnguarded
from server.engines.plugin import hooks, tensors
from server.engines.plugin.counters import SUFFIX, Counters
from server.engines.plugin.reading import NULL, BytesWrong, sealed
from server.engines.plugin.spec import GuardSpec
from server.engines.plugin.violations import write
from server.engines.plugin.watch import Built, Named, Watch
from server.settings import guard_spec_file, names_vllm_plugin

_NAME = "tenon_guard"


def install() -> None:
    """Called by vLLM in each process. Raises EngineUnguarded, and the engine does not start.

    Does nothing unless VLLM_PLUGINS names it: without that variable vLLM calls every installed plugin, and a
    vLLM that nobody meant to guard must start as ever.
    """
    if not names_vllm_plugin(_NAME):
        return
    if not hasattr(os, "memfd_create"):
        raise EngineUnguarded("the guard needs Linux: it hands verified bytes over as sealed memory")
    path = guard_spec_file()
    if path is None:
        raise EngineUnguarded("TENON_GUARD names no file: the guard does not know what to watch")
    try:
        spec = GuardSpec.read(path)
    except InvalidDocument as error:
        raise EngineUnguarded(error.message) from None
    hooks.wrap(Guard(spec).wrappers())


class Guard:
    """One per process; it opens its files with the first adapter or step, so only workers have any."""

    def __init__(self, spec: GuardSpec) -> None:
        self._spec = spec
        self._reports = Path(spec.reports)
        self._cache = Path(spec.cache)
        self._tally: Counters | None = None
        self._watch_: Watch | None = None
        self._built: dict[int, Built] = {}
        """By the identity of vLLM's object that holds the kernel's indices."""
        self._adapters = False
        self._place = 0

    @property
    def _watch(self) -> Watch:
        if self._watch_ is None:
            self._tally = Counters(self._reports / f"{os.getpid()}{SUFFIX}")
            self._watch_ = Watch(
                isolate_base=self._spec.isolate_base,
                tally=self._tally,
                report=lambda violation: write(self._reports, violation),
            )
        return self._watch_

    def wrappers(self) -> dict[str, hooks.Wrapper]:
        return {
            "WorkerWrapperBase.execute_model": self._execute,
            "InputBatch.make_lora_inputs": self._first_rows,
            "LoraState.make_lora_inputs": self._second_rows,
            "WorkerLoRAManager._load_adapter": self._load,
            "WorkerLoRAManager.set_active_adapters": self._set,
            "LRUCacheWorkerLoRAManager.add_adapter": self._add,
            "LRUCacheWorkerLoRAManager.create_lora_manager": self._create,
            "LoRAModelManager.activate_adapter": self._activate,
        }

    def _execute(self, original: Any) -> Any:
        def execute_model(worker: Any, scheduler_output: Any) -> Any:
            watch = self._watch
            with self._timed():
                watch.begin(
                    [(new.req_id, _named(new.lora_request)) for new in scheduler_output.scheduled_new_reqs],
                    scheduler_output.finished_req_ids,
                    scheduler_output.num_scheduled_tokens,
                )
            try:
                result = original(worker, scheduler_output)
            except BaseException:
                watch.abandon()
                raise
            watch.end(adapters=self._adapters)
            return result

        return execute_model

    def _first_rows(self, original: Any) -> Any:
        """vLLM's first model runner (CPU, and GPUs on request)."""

        def make_lora_inputs(batch: Any, num_scheduled_tokens: Any, num_sampled_tokens: Any) -> Any:
            count = batch.num_reqs
            with self._timed():
                self._watch.rows(batch.req_ids[:count], batch.request_lora_mapping[:count].tolist())
            return original(batch, num_scheduled_tokens, num_sampled_tokens)

        return make_lora_inputs

    def _second_rows(self, original: Any) -> Any:
        """vLLM's second model runner (GPUs)."""

        def make_lora_inputs(state: Any, req_ids: Any, idx_mapping: Any, num_scheduled_tokens: Any) -> Any:
            with self._timed():
                self._watch.rows(req_ids, state.lora_ids[idx_mapping].tolist())
            return original(state, req_ids, idx_mapping, num_scheduled_tokens)

        return make_lora_inputs

    def _create(self, original: Any) -> Any:
        def create_lora_manager(keeper: Any, model: Any, vllm_config: Any) -> Any:
            made = original(keeper, model, vllm_config)
            slots = keeper._adapter_manager
            hooks.require(slots)
            for indices in slots.punica_wrapper_mapping.values():
                self._follow(indices)
            self._adapters = True
            return made

        return create_lora_manager

    def _follow(self, indices: Any) -> None:
        """Remember what the kernel's indices are made from, each time they are made."""
        original = indices.update_metadata

        def update_metadata(mapping: Any, lora_index_to_id: Any, *others: Any, **named: Any) -> Any:
            self._built.pop(id(indices), None)
            result = original(mapping, lora_index_to_id, *others, **named)
            self._built[id(indices)] = Built(
                mapping.index_mapping, mapping.prompt_mapping, tuple(lora_index_to_id)
            )
            return result

        indices.update_metadata = update_metadata

    def _add(self, original: Any) -> Any:
        def add_adapter(keeper: Any, lora_request: Any) -> Any:
            self._watch.admit(_certain(lora_request), inplace=bool(lora_request.load_inplace))
            return original(keeper, lora_request)

        return add_adapter

    def _load(self, original: Any) -> Any:
        def load_adapter(keeper: Any, lora_request: Any) -> Any:
            from msgspec.structs import replace

            watch, named = self._watch, _certain(lora_request)
            try:
                with sealed(named.name, lora_request.lora_path, cache=self._cache, scratch=self._reports) as (
                    reading,
                    folder,
                ):
                    adapter = original(keeper, replace(lora_request, lora_path=str(folder)))
            except BytesWrong as error:
                watch.violate("bytes", str(error), named)
            except FileNotFoundError:
                watch.turn_down("bytes", "the adapter is not in the node's cache", named)
            except ValueError as error:
                watch.turn_down("identity", str(error), named)
            if named.name == NULL and not tensors.without_effect(adapter):
                watch.violate("effect", "the null adapter has an effect", named)
            adapter.tenon_reading = reading
            watch.loaded(named, reading)
            return adapter

        return load_adapter

    def _activate(self, original: Any) -> Any:
        def activate_adapter(slots: Any, lora_id: int) -> bool:
            done: bool = original(slots, lora_id)
            if done:
                slot = slots.lora_index_to_id.index(lora_id)
                self._watch.activated(lora_id, tensors.sums(slots.modules, slot))
            return done

        return activate_adapter

    def _set(self, original: Any) -> Any:
        def set_active_adapters(keeper: Any, requests: Any, mapping: Any) -> None:
            original(keeper, requests, mapping)
            watch = self._watch
            if not watch.running or mapping is None:
                return
            with self._timed():
                self._check(watch, keeper._adapter_manager, requests, mapping)

        return set_active_adapters

    def _check(self, watch: Watch, slots: Any, requests: Any, mapping: Any) -> None:
        registered = slots._registered_adapters.cache
        language = next(iter(slots.punica_wrapper_mapping.values()))
        watch.check(
            [_certain(request) for request in requests],
            tokens=mapping.index_mapping,
            prompts=mapping.prompt_mapping,
            built=self._built.get(id(language)),
            layout=slots.lora_index_to_id,
            registered=lambda number: getattr(registered.get(number), "tenon_reading", None),
        )
        if self._spec.audit_every and watch.step % self._spec.audit_every == 0:
            self._audit(watch, slots)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """What the guard costs is measured where it runs, always, and is a metric of every engine."""
        start = perf_counter_ns()
        yield
        if self._tally is not None:
            self._tally.add("nanoseconds", perf_counter_ns() - start)

    def _audit(self, watch: Watch, slots: Any) -> None:
        """One tensor of every occupied slot, another one each time."""
        for slot, number in enumerate(slots.lora_index_to_id):
            if number is not None:
                found = list(tensors.slot_tensors(slots.modules, slot))
                place = self._place % len(found)
                watch.audited(number, slot, place, int(tensors.pending_sum(found[place])))
        self._place += 1
        if self._tally is not None:
            self._tally.add("audits")


def _certain(lora_request: Any) -> Named:
    return Named(lora_request.lora_int_id, lora_request.lora_name)


def _named(lora_request: Any) -> Named | None:
    return None if lora_request is None else _certain(lora_request)
