"""Odds-ratio preference optimization (arXiv:2403.07691): likelihood of the chosen answer, and an odds ratio.

TRL (like the paper's code) takes the likelihood of the prompt as well, so that the adapter learns to write
the user's requests. Here only the answer counts, as everywhere else.
"""

from typing import Any

from trainer.datasets import Pair
from trainer.learning.cpo import as_it_is, without_reference
from trainer.learning.job import Job, Learned
from trainer.learning.session import Session
from trainer.recipes.methods import OrpoSettings


def learn(job: Job[OrpoSettings, Pair]) -> Learned:
    beta = job.settings.beta
    return without_reference(
        job,
        lambda session, common, rows: _trainer(session, {**common, "beta": beta}, rows),
        cure="lower orpo.beta",
    )


def _trainer(session: Session, config: dict[str, Any], rows: Any) -> Any:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class Trainer(ORPOTrainer):  # type: ignore[misc]  # trl is not followed, so it is Any
        tokenize_row = staticmethod(as_it_is)

        def concatenated_forward(self, model: Any, batch: Any) -> Any:
            chosen, rejected, chosen_logits, rejected_logits, _, *rest = super().concatenated_forward(
                model, batch
            )
            # ``chosen`` is the mean log-probability of each answer's tokens.
            return (chosen, rejected, chosen_logits, rejected_logits, -chosen.mean(), *rest)

    return Trainer(
        model=session.model,
        args=ORPOConfig(**config),
        train_dataset=rows,
        processing_class=session.tokenizer,
        peft_config=session.peft_config,
    )
