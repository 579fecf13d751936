"""Which code learns which method."""

from collections.abc import Callable
from typing import Any, Final

from trainer.learning import (
    black_box,
    cpo,
    distill,
    dpo,
    gkd,
    gold,
    grpo,
    kto,
    orpo,
    ppo,
    process_reward,
    reward,
    rloo,
    sft,
    star,
)
from trainer.learning.job import Job, Learned
from trainer.recipes.methods import MethodName

LEARN: Final[dict[MethodName, Callable[[Job[Any, Any]], Learned]]] = {
    "sft": sft.learn,
    "dpo": dpo.learn,
    "orpo": orpo.learn,
    "kto": kto.learn,
    "cpo": cpo.learn,
    "simpo": cpo.learn_simpo,
    "reward": reward.learn,
    "process_reward": process_reward.learn,
    "gkd": gkd.learn,
    "distill": distill.learn,
    "gold": gold.learn,
    "black_box": black_box.learn,
    "star": star.learn,
    "grpo": grpo.learn,
    "rloo": rloo.learn,
    "ppo": ppo.learn,
}
