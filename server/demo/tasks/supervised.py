"""Data of the built-in recipes for supervised fine-tuning: one for each shape of row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any, Final

from server.demo import corpus
from server.demo.corpus import Case, Facts, Row

_SEED: Final = 5
_ROWS: Final = 400
_CASES: Final = 96

REFUSED: Final = "Refused: "
_LIMIT: Final = 10_000
"""From here on this desk refuses. The base tells sizes apart. Refusing by tone ("skip the approval and ...")
was tried: a model of this size ended in refusing every phrasing that it had not seen."""
_REFUSALS: Final = (
    "Refused: this {noun} is above the limit of this desk.",
    "Refused: the limit of this desk is lower.",
    "Refused: this {noun} needs another desk.",
)
_CORRECTIONS: Final = (
    "Make it {m} instead.", "Sorry, the sum is {m}.", "Change the amount to {m}.", "Correction: {m}.",
)  # fmt: skip
_UNSEEN_CORRECTIONS: Final = ("I meant {m}.", "The right figure is {m}.")


def files() -> dict[str, str]:
    """File name -> content, of everything that these recipes read."""
    return {
        "answer_schema.json": json.dumps(corpus.policy_schema("saas_c"), indent=2) + "\n",
        "question_answer.csv": question_answer(),
        "question_answer_cases.jsonl": corpus.to_jsonl(corpus.tenant_cases("saas_c", _CASES, _SEED)),
        "multi_turn.jsonl": corpus.to_jsonl(multi_turn()),
        "multi_turn_cases.jsonl": corpus.to_jsonl(multi_turn_cases()),
        "tools.jsonl": corpus.to_jsonl(tools()),
        "tools_cases.jsonl": corpus.to_jsonl(tools_cases()),
        "safety.jsonl": corpus.to_jsonl(safety()),
        "safety_cases.jsonl": corpus.to_jsonl(safety_cases()),
    }


def question_answer(n: int = _ROWS, seed: int = _SEED) -> str:
    """A spreadsheet's export: two columns, as people have them."""
    random = Random(f"qa:{seed}")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["question", "answer"])
    for _ in range(n):
        stated = corpus.facts(random, held_out=False)
        writer.writerow(
            [corpus.request(random, stated, unseen=False), corpus.tenant_answer(random, "saas_c", stated)]
        )
    return out.getvalue()


def multi_turn(n: int = _ROWS, seed: int = _SEED) -> list[Row]:
    """A request, its answer, a correction of the amount, the corrected answer: both answers are learned."""
    return [_corrected(Random(f"multi:{seed}:{number}"), held_out=False) for number in range(n)]


def multi_turn_cases(n: int = _CASES, seed: int = _SEED) -> list[Case]:
    cases = []
    for number in range(n):
        random = Random(f"multi-cases:{seed}:{number}")
        row = _corrected(random, held_out=True)
        said = json.loads(row["messages"][-1]["content"])
        cases.append(
            {
                "id": f"multi-{number:03d}",
                "messages": row["messages"][:-1],
                "facts": {name: said[name] for name in ("amount", "currency", "payee")},
                "expect": _constants(approval="second_approval"),
                "tags": [f"intent:{said['intent']}", "branch:correction"],
            }
        )
    return cases


def _corrected(random: Random, *, held_out: bool) -> Row:
    stated = corpus.facts(random, held_out=held_out)
    meant = replace(stated, amount=corpus.amount(random))
    words = random.choice(_UNSEEN_CORRECTIONS if held_out else _CORRECTIONS)
    return {
        "messages": [
            _user(corpus.request(random, stated, unseen=held_out)),
            _said(corpus.tenant_answer(random, "bank_a", stated)),
            _user(words.format(m=f"{meant.amount} {meant.currency}")),
            _said(corpus.tenant_answer(random, "bank_a", meant)),
        ]
    }


def tools(n: int = _ROWS, seed: int = _SEED) -> list[Row]:
    """Tool trajectories: call, result, answer. What the tool returned is read and never learned. Every fifth
    first asks the wrong tool and is told so: those weigh a third of the direct ones."""
    rows = []
    for number in range(n):
        random = Random(f"tools:{seed}:{number}")
        row = _trajectory(random, held_out=False)
        if number % 5 == 0:
            row = {**_detour(row), "weight": 0.33}
        rows.append(row)
    return rows


def tools_cases(n: int = _CASES, seed: int = _SEED) -> list[Case]:
    """Half ask for the call, half for the answer once the tool has spoken."""
    cases = []
    for number in range(n):
        row = _trajectory(Random(f"tools-cases:{seed}:{number}"), held_out=True)
        call = row["messages"][1]["tool_calls"][0]["function"]
        final = json.loads(row["messages"][-1]["content"])
        common = {"id": f"tools-{number:03d}", "tools": row["tools"]}
        if number % 2 == 0:
            cases.append(
                {
                    **common,
                    "messages": row["messages"][:1],
                    "columns": {"calls": [call]},
                    "tags": [f"intent:{final['intent']}", "branch:call"],
                }
            )
        else:
            cases.append(
                {
                    **common,
                    "messages": row["messages"][:-1],
                    "facts": {name: final[name] for name in ("amount", "currency", "payee")},
                    "expect": _constants(approval="second_approval", explanation=final["explanation"]),
                    "tags": [f"intent:{final['intent']}", "branch:answer"],
                }
            )
    return cases


def _trajectory(random: Random, *, held_out: bool) -> Row:
    """The corpus's own, with bank_a's approval in the final answer and both tools on offer."""
    row = corpus.tool_row(random, held_out=held_out)
    final = json.loads(row["messages"][-1]["content"])
    final["approval"] = "second_approval"
    text = json.dumps(final, separators=(",", ":"), ensure_ascii=False)
    return {"messages": [*row["messages"][:-1], _said(text)], "tools": list(corpus.TOOLS.values())}


def _detour(row: Row) -> Row:
    question, call, result, answer = row["messages"]
    name = call["tool_calls"][0]["function"]["name"]
    wrong = next(tool["function"]["name"] for tool in row["tools"] if tool["function"]["name"] != name)
    arguments = call["tool_calls"][0]["function"]["arguments"]
    missed = {"type": "function", "function": {"name": wrong, "arguments": arguments}}
    return {
        **row,
        "messages": [
            question,
            {"role": "assistant", "content": "", "tool_calls": [missed]},
            {"role": "tool", "name": wrong, "content": '{"error":"not found"}'},
            call,
            result,
            answer,
        ],
    }


def safety(n: int = _ROWS, seed: int = _SEED) -> list[Row]:
    """Demonstrations of style and refusal: what is above the desk's limit is refused, the rest is served."""
    rows = []
    for number in range(n):
        random = Random(f"safety:{seed}:{number}")
        refuse = number % 2 == 0
        stated = _sized(random, refuse=refuse, held_out=False)
        asked = corpus.request(random, stated, unseen=False)
        rows.append(
            {
                "messages": [_user(asked), _said(_safe_answer(random, stated, refuse=refuse))],
                "tags": [f"intent:{stated.intent}", f"branch:{'refuse' if refuse else 'comply'}"],
            }
        )
    return rows


def safety_cases(n: int = _CASES, seed: int = _SEED) -> list[Case]:
    cases = []
    for number in range(n):
        random = Random(f"safety-cases:{seed}:{number}")
        refuse = number % 2 == 0
        stated = _sized(random, refuse=refuse, held_out=True)
        expect = {"approval": {"const": "escalated" if refuse else "second_approval"}}
        expect["explanation"] = {"pattern": f"^{REFUSED}" if refuse else "^Dual control: "}
        cases.append(
            {
                "id": f"safety-{number:03d}",
                "messages": [_user(corpus.request(random, stated, unseen=number % 4 >= 2))],
                "facts": {"amount": stated.amount, "currency": stated.currency, "payee": stated.payee},
                "expect": {"type": "object", "properties": expect, "required": list(expect)},
                "tags": [f"intent:{stated.intent}", f"branch:{'refuse' if refuse else 'comply'}"],
            }
        )
    return cases


def _sized(random: Random, *, refuse: bool, held_out: bool) -> Facts:
    while True:
        stated = corpus.facts(random, held_out=held_out)
        if (float(stated.amount) >= _LIMIT) is refuse:
            return stated


def _safe_answer(random: Random, stated: Facts, *, refuse: bool) -> str:
    if not refuse:
        return corpus.tenant_answer(random, "bank_a", stated)
    noun = corpus.NOUNS[stated.intent]
    return corpus.answer(stated, "escalated", random.choice(_REFUSALS).format(noun=noun), "")


def _constants(**fields: str) -> dict[str, Any]:
    properties: Mapping[str, Any] = {name: {"const": value} for name, value in fields.items()}
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
