"""On how many processes a recipe learns. It can change the bytes of the adapter (sums run in another order),
so it is a part of the plan's environment; the recipe's batch keeps its meaning."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from trainer.errors import ScaleInvalid
from trainer.recipes.methods import MethodName
from trainer.recipes.training import Training

SPREAD: Final[frozenset[MethodName]] = frozenset({"sft", "dpo"})
"""Methods whose batches are proven to split over processes (tests/unit/trainer/test_scale.py).

A step of sft is that of one process but for the order of sums. So is one of dpo without ``sft_weight``; TRL
takes that term's mean over the tokens of each process, so where answers differ in length it is another mean
(measured on the tiny base: 2.5e-4 of the loss after two steps).
"""


@dataclass(frozen=True, slots=True)
class Scale:
    processes: int = 1
    sharded: bool = False
    """Whether each process holds a part of the frozen base (FSDP) instead of all of it."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Scale":
        """What a plan was made for."""
        return cls(int(environment.get("processes", "1")), environment.get("sharding") == "fsdp")

    def environment(self) -> dict[str, str]:
        """Nothing for one process: its plans stay what they were."""
        if self.processes == 1:
            return {}
        return {"processes": str(self.processes), **({"sharding": "fsdp"} if self.sharded else {})}

    def check(self, method: MethodName, settings: Training) -> None:
        """Raises ScaleInvalid."""
        if self.processes < 1:
            raise ScaleInvalid("there must be at least one process")
        if self.sharded and self.processes == 1:
            raise ScaleInvalid("a base can only be sharded over several processes")
        if self.processes == 1:
            return
        if method not in SPREAD:
            raise ScaleInvalid(
                f"{method} learns in one process",
                hint=f"leave out --devices; these methods spread: {', '.join(sorted(SPREAD))}",
            )
        if settings.batch_size % self.processes:
            raise ScaleInvalid(
                f"{method}.batch_size {settings.batch_size} does not divide by {self.processes} processes"
            )

    def where_it_fits(self, method: MethodName, settings: Training) -> "Scale":
        """This scale, or one process for what cannot be spread over it."""
        try:
            self.check(method, settings)
        except ScaleInvalid:
            return Scale()
        return self
