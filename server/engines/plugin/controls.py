"""Faults on purpose, so that a suite can show that it would see them. Only ``tenon mixup`` ever names these.

Each is an entry point of ``vllm.general_plugins`` and does nothing unless VLLM_PLUGINS names it. vLLM itself
calls every plugin that is installed where VLLM_PLUGINS is not set, so each looks for its own name.
"""

from typing import Any

_NAME = "tenon_control_47724"


def without_47724() -> None:
    """Takes the fix of vLLM #47724 out again: the kernel's indices are made anew only for another batch, also
    when an adapter that was loaded meanwhile has moved into a running request's slot."""
    from vllm import envs

    if _NAME not in (envs.VLLM_PLUGINS or ()):
        return
    from vllm.lora.model_manager import LoRAModelManager

    def set_adapter_mapping(self: Any, mapping: Any) -> None:
        if self._last_mapping != mapping:
            self._set_adapter_mapping(mapping)
            self._last_mapping = mapping
            self._last_slot_layout = tuple(self.lora_index_to_id)

    LoRAModelManager.set_adapter_mapping = set_adapter_mapping
