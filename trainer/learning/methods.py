"""Which code learns which method."""

from collections.abc import Callable
from typing import Any, Final

from trainer.learning import sft
from trainer.learning.job import Job, Learned
from trainer.recipes.methods import MethodName

LEARN: Final[dict[MethodName, Callable[[Job[Any, Any]], Learned]]] = {
    "sft": sft.learn,
}
