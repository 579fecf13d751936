"""Which recipe shows which method, and which held-out figure must move."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Entry:
    """``target`` should rise, or fall when ``down``, compared with where training started."""

    recipe: str
    shows: str
    target: str
    down: bool = False
    remark: str = ""


ENTRIES: Final = (
    Entry("sft", "SFT, single turn (CSV)", "policy"),
    Entry("multi_turn", "SFT, several turns", "copied"),
    Entry("tools", "SFT, tool trajectories, weighted", "policy"),
    Entry("safety", "SFT, refusal and style, packed (bfd)", "policy"),
    Entry("qlora", "QLoRA (nf4), attention only, rslora", "policy"),
    Entry("dpo", "DPO with SFT term", "policy"),
    Entry("orpo", "ORPO", "policy"),
    Entry("kto", "KTO", "policy"),
    Entry("cpo", "CPO", "policy"),
    Entry("simpo", "SimPO", "policy"),
    Entry("reward", "outcome reward model", "pair_accuracy"),
    Entry("process_reward", "process reward model", "step_balanced"),
    Entry("grpo_original", "GRPO", "policy"),
    Entry("grpo", "Dr. GRPO", "policy"),
    Entry("dapo", "DAPO, dynamic sampling", "policy"),
    Entry("gspo", "GSPO", "policy"),
    Entry("luffy", "LUFFY, off-policy members", "policy"),
    Entry("rloo", "RLOO", "policy"),
    Entry("ppo", "PPO", "policy"),
    Entry("rlhf", "RLHF: reward model, then GRPO with KL", "policy"),
    Entry("word_limit", "GRPO, at most 50 words (binary)", "words", down=True),
    Entry("word_limit_linear", "GRPO, at most 50 words (linear decay)", "words", down=True),
    Entry("twenty_questions", "GRPO in a game of 20 Questions", "verifier.twenty_questions"),
    Entry("black_box", "distillation from answers", "policy"),
    Entry("gkd", "GKD, offline white-box", "policy"),
    Entry("distill", "on-policy white-box distillation", "policy"),
    Entry("gold", "GOLD, across tokenizers", "policy"),
    Entry("star", "STaR, self-training", "policy"),
    Entry("best_of_n", "best of N, learned", "policy"),
    Entry("student", "student on a base half the size", "policy"),
)
