"""Builds the demo's base model, measures it on held-out requests and refuses to write one that is not good
enough.

Good enough has two sides. The model must be able: valid JSON, facts copied from vendors and phrasings it has
never seen. And it must be undecided: a base that already follows a tenant's policy would prove nothing about
adapters.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

from server.demo import corpus
from server.demo.errors import BaseBelowQuality

SHIPPED_BASE: Final = Path(__file__).parent / "base"
SHIPPED_STUDENT: Final = Path(__file__).parent / "student_base"

BATCH: Final = 32
CASES_PER_TENANT: Final = 100

# The standard error at n = 300 is about 0.012 for a share of 0.95.
VALID_JSON_AT_LEAST: Final = 0.97
AMOUNTS_AT_LEAST: Final = 0.95
# Amounts alone are not enough: of four corpora tried, two gave a base with all amounts right and most
# currencies wrong (facts 0.11). The bound was set after the shipped base had reached 0.92: it tells 0.92 from
# 0.11 and claims no more.
FACTS_AT_LEAST: Final = 0.90
POLICY_AT_MOST: Final = 0.60
GREEDY_POLICY_AT_MOST: Final = 0.10


Size = Literal["base", "student"]


@dataclass(frozen=True, slots=True)
class Making:
    """What one size is made of: fields of ``pretraining.Shape``, and how long it learns."""

    shape: Mapping[str, int]
    steps: int
    own_tokenizer: bool = True
    """Otherwise that of the shipped base: white-box distillation needs one vocabulary for both."""


MAKINGS: Final[Mapping[Size, Making]] = {
    "base": Making(shape={}, steps=600),
    # Half the base's parameters, and steps instead: a width of 96 copied every amount, but after 1,200 steps
    # only 15 % of its answers had all facts right, against 93 % here.
    "student": Making(
        shape={"hidden": 128, "layers": 4, "heads": 4, "key_value_heads": 2, "feed_forward": 384},
        steps=1000,
        own_tokenizer=False,
    ),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Shares over `n` held-out requests at one temperature."""

    n: int
    valid_json: float
    amount_copied: float
    facts_copied: float
    intent_right: float

    @classmethod
    def of(cls, marks: Sequence[_Mark]) -> Measured:
        return cls(
            n=len(marks),
            valid_json=_share([mark.valid for mark in marks]),
            amount_copied=_share([mark.amount for mark in marks]),
            facts_copied=_share([mark.facts for mark in marks]),
            intent_right=_share([mark.intent for mark in marks]),
        )


@dataclass(frozen=True, slots=True)
class Temperature:
    """What the base does at one temperature, and how near that is to each tenant's policy."""

    all: Measured
    seen_phrasings: Measured
    unseen_phrasings: Measured
    policy: dict[corpus.Tenant, float]
    """Share of a tenant's cases whose answer satisfies that tenant's policy by luck."""
    style: dict[corpus.Tenant, float]
    """Share of all answers whose explanation sounds like the tenant's, whatever the approval."""


@dataclass(frozen=True, slots=True)
class BaseQuality:
    """The report that travels with the base as `quality.json`."""

    seed: int
    parameters: int
    steps: int
    rows: int
    seconds: float
    corpus: str
    versions: dict[str, str]
    greedy: Temperature
    sampled: Temperature

    REPORT: ClassVar[str] = "quality.json"

    def shortcomings(self) -> list[str]:
        """Every bound that is missed, in words; empty when the base may ship."""
        missed = []
        for name, part in (("seen", self.greedy.seen_phrasings), ("unseen", self.greedy.unseen_phrasings)):
            if part.valid_json < VALID_JSON_AT_LEAST:
                missed.append(
                    f"valid JSON on {name} phrasings: {part.valid_json:.3f}, wanted {VALID_JSON_AT_LEAST}"
                )
            if part.amount_copied < AMOUNTS_AT_LEAST:
                missed.append(
                    f"amounts copied on {name} phrasings: {part.amount_copied:.3f}, wanted {AMOUNTS_AT_LEAST}"
                )
            if part.facts_copied < FACTS_AT_LEAST:
                missed.append(
                    f"all facts copied on {name} phrasings: {part.facts_copied:.3f}, wanted {FACTS_AT_LEAST}"
                )
        for tenant in corpus.TENANTS:
            if self.sampled.policy[tenant] > POLICY_AT_MOST:
                missed.append(
                    f"{tenant}'s policy is already met by {self.sampled.policy[tenant]:.3f} of the samples"
                )
            if self.greedy.policy[tenant] > GREEDY_POLICY_AT_MOST:
                missed.append(
                    f"{tenant}'s policy is the greedy answer in {self.greedy.policy[tenant]:.3f} of the cases"
                )
            # The policy asks for approval and style together, so a base that talks like one slips past it.
            if self.greedy.style[tenant] > GREEDY_POLICY_AT_MOST:
                missed.append(
                    f"{tenant}'s style is the greedy one in {self.greedy.style[tenant]:.3f} of all answers"
                )
        return missed

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


@dataclass(frozen=True, slots=True)
class _Mark:
    """One answer, judged."""

    valid: bool
    amount: bool
    facts: bool
    intent: bool
    policy: bool
    explanation: str


_INVALID: Final = _Mark(valid=False, amount=False, facts=False, intent=False, policy=False, explanation="")


def build_base(
    out: Path,
    *,
    seed: int,
    progress: Callable[[int, int, dict[str, float]], None],
    size: Size = "base",
    steps: int | None = None,
) -> BaseQuality:
    """Make the corpus, train tokenizer and model, measure, and write the base folder to `out`.

    Minutes of two CPU cores. Raises `BaseBelowQuality`, with every missed bound, before anything is written.
    """
    from trainer.learning import pretraining
    from trainer.learning.base import load_tokenizer

    started = time.monotonic()
    making = MAKINGS[size]
    steps = making.steps if steps is None else steps
    rows = corpus.base_rows(steps * BATCH, seed)
    tokenizer = pretraining.train_tokenizer(rows) if making.own_tokenizer else load_tokenizer(SHIPPED_BASE)
    shape, schedule = pretraining.Shape(**making.shape), pretraining.Schedule(steps=steps, batch=BATCH)
    model = pretraining.pretrain(
        rows, tokenizer, seed=seed, shape=shape, schedule=schedule, progress=progress
    )

    def at(temperature: float) -> Temperature:
        # Another seed than the rows': the vendors and phrasings are held out whatever the seed, the amounts
        # are not.
        cases = {tenant: corpus.tenant_cases(tenant, CASES_PER_TENANT, seed + 1) for tenant in corpus.TENANTS}
        questions = [case for tenant in corpus.TENANTS for case in cases[tenant]]
        replies = pretraining.answers(model, tokenizer, questions, temperature=temperature, seed=seed)
        return measure(cases, replies)

    quality = BaseQuality(
        seed=seed,
        parameters=pretraining.parameter_count(model),
        steps=steps,
        rows=len(rows),
        corpus=corpus.corpus_digest(rows),
        versions=pretraining.library_versions(),
        greedy=at(0.0),
        sampled=at(1.0),
        seconds=round(time.monotonic() - started, 1),
    )
    if missed := quality.shortcomings():
        raise BaseBelowQuality("the trained base is not good enough: " + "; ".join(missed), missed=missed)
    pretraining.write_base(model, tokenizer, out)
    if not making.own_tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(SHIPPED_BASE / name, out / name)  # saved again, it gains keys that mean nothing
    (out / BaseQuality.REPORT).write_text(quality.to_json(), encoding="utf-8")
    return quality


def measure(cases: Mapping[corpus.Tenant, Sequence[corpus.Case]], replies: Sequence[str]) -> Temperature:
    """Judge the replies, which stand in the order of the tenants' cases."""
    questions = [case for tenant in corpus.TENANTS for case in cases[tenant]]
    marks = [judge(case, reply) for case, reply in zip(questions, replies, strict=True)]
    judged = list(zip(questions, marks, strict=True))
    policy: dict[corpus.Tenant, float] = {}
    start = 0
    for tenant in corpus.TENANTS:
        end = start + len(cases[tenant])
        policy[tenant] = _share([mark.policy for mark in marks[start:end]])
        start = end
    return Temperature(
        all=Measured.of(marks),
        seen_phrasings=Measured.of([mark for case, mark in judged if "phrasing:seen" in case["tags"]]),
        unseen_phrasings=Measured.of([mark for case, mark in judged if "phrasing:unseen" in case["tags"]]),
        policy=policy,
        style={
            tenant: _share([mark.explanation.startswith(corpus.STYLES[tenant]) for mark in marks])
            for tenant in corpus.TENANTS
        },
    )


def judge(case: corpus.Case, reply: str) -> _Mark:
    """Valid means JSON with exactly the answer's keys in their order, every value a string."""
    import jsonschema

    try:
        parsed: Any = json.loads(reply)
    except ValueError:
        return _INVALID
    if not (
        isinstance(parsed, dict)
        and tuple(parsed) == corpus.ANSWER_KEYS
        and all(isinstance(value, str) for value in parsed.values())
    ):
        return _INVALID
    return _Mark(
        valid=True,
        amount=parsed["amount"] == case["facts"]["amount"],
        facts=corpus.copied(case, parsed),
        intent=f"intent:{parsed['intent']}" in case["tags"],
        policy=jsonschema.Draft202012Validator(case["expect"]).is_valid(parsed),
        explanation=parsed["explanation"],
    )


def _share(outcomes: Sequence[bool]) -> float:
    return round(sum(outcomes) / len(outcomes), 4) if outcomes else 0.0
