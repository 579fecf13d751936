"""Why an adapter does nothing: the refusals know only its weights, the run knows how they came about."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from registry.errors import AdapterZeroEffect
from trainer.alarms import alarms_in
from trainer.errors import ZeroEffect
from trainer.methods import METHODS
from trainer.recipes.methods import MethodName

_REINFORCEMENT: Final = (
    "rewards that are equal within every group teach nothing: ask easier questions, filter them by pass rate "
    "(tenon data sample, tenon data filter --pass-rate), use a finer reward, or start from an adapter that "
    "was trained with sft"
)


@contextmanager
def explained(method: MethodName, proof: Mapping[str, Any]) -> Iterator[None]:
    """Raises AdapterZeroEffect and ZeroEffect again, with the run's alarms and what helps this method."""
    try:
        yield
    except (AdapterZeroEffect, ZeroEffect) as error:
        said = [str(alarm) for alarm in alarms_in(proof)]
        hint = _REINFORCEMENT if METHODS[method].family == "reinforcement" else ZeroEffect.hint
        message = "\n".join([f"{method} learned nothing: {error}", *said])
        raise type(error)(message, hint=hint) from error
