"""How adapters come and go: vLLM's endpoints, SGLang's, or none."""

from pathlib import Path
from typing import Final, Literal, TypeAlias

from server.mixup.wire import Wire

Dialect: TypeAlias = Literal["vllm", "sglang", "none"]
_LOAD: Final = {"vllm": "/v1/load_lora_adapter", "sglang": "/load_lora_adapter"}
_UNLOAD: Final = {"vllm": "/v1/unload_lora_adapter", "sglang": "/unload_lora_adapter"}


class Loader:
    """Every method returns (status, text): a refusal is something to report, not an exception."""

    def __init__(self, wire: Wire, dialect: Dialect) -> None:
        self._wire = wire
        self.dialect = dialect

    @property
    def possible(self) -> bool:
        return self.dialect != "none"

    def model(self, name: str, base: str | None) -> str:
        """What a request calls an adapter: SGLang gives every other model's name to the base
        (sgl-project/sglang#11570)."""
        return f"{base}:{name}" if self.dialect == "sglang" and name != base else name

    async def load(self, name: str, folder: Path, *, inplace: bool = False) -> tuple[int, str]:
        body: dict[str, object] = {"lora_name": name, "lora_path": str(folder)}
        if inplace:
            body["load_inplace"] = True
        return await self._wire.call("POST", self.load_path, body)

    async def unload(self, name: str) -> tuple[int, str]:
        return await self._wire.call("POST", self.unload_path, {"lora_name": name})

    @property
    def load_path(self) -> str:
        return _LOAD.get(self.dialect, _LOAD["vllm"])

    @property
    def unload_path(self) -> str:
        return _UNLOAD.get(self.dialect, _UNLOAD["vllm"])
