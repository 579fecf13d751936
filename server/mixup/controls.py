"""Negative controls: what is broken on purpose, so that the suite's silence about others means something."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from server.mixup.ground import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    name: str
    meaning: str
    caught_by: str
    """The danger that has to be found present."""
    beside: frozenset[str] = frozenset()
    """Dangers looked for as well: they must be handled, or the control would only show a broken server."""
    plugins: tuple[str, ...] = ()
    """Of vLLM, in VLLM_PLUGINS."""
    tenant_salts: Literal["none", "each", "same"] = "each"
    update: Literal["reuse", "fresh"] = "fresh"
    denies_cache: bool = False
    """Whatever the server says of it: nothing but the time shows that a prompt came from the cache."""

    def plan(self, *, seed: int, requests: int, slots: int) -> Plan:
        return Plan(
            seed=seed,
            requests=requests,
            slots=slots,
            pool=slots + 2,
            tenant_salts=self.tenant_salts,
            update=self.update,
            denies_cache=self.denies_cache,
            only=self.beside | {self.caught_by},
        )


_ALL: Final = (
    Control(
        name="fix-47724-removed",
        meaning="vLLM without the fix of #47724: an answer in flight goes on with the weights of whatever "
        "was loaded into its slot",
        caught_by="D2",
        beside=frozenset({"Q1"}),
        plugins=("tenon_control_47724",),
    ),
    Control(
        name="name-reused",
        meaning="an operator that brings new weights under the old name and path",
        caught_by="D7",
        beside=frozenset({"Q1"}),
        update="reuse",
    ),
    Control(
        name="salt-colliding",
        meaning="a gateway that gives two tenants one salt of the prefix cache",
        caught_by="S1",
        beside=frozenset({"Q1"}),
        tenant_salts="same",
    ),
    Control(
        name="cache-denied",
        meaning="the same, and it says of every answer that nothing came from the cache: only the time tells",
        caught_by="S1",
        beside=frozenset({"Q1"}),
        tenant_salts="same",
        denies_cache=True,
    ),
)
CONTROLS: Final[Mapping[str, Control]] = {control.name: control for control in _ALL}
