"""Questions with several answers each and what the verifiers say of them: what ``tenon data sample`` writes
and ``tenon data filter`` reads."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from trainer.datasets import Case
from trainer.datasets.formats import Report
from trainer.datasets.formats.lines import read_lines
from trainer.datasets.shapes import read_row
from trainer.rewards import Scored
from trainer.selection import Attempt, Keep, Tried, pick, within

Written: TypeAlias = Literal["conversations", "pairs", "cases"]
_OURS: Final = ("answers", "pass_rate")


def to_lines(tried: Sequence[Tried]) -> str:
    return "".join(_dump({**_case(one.case), **_answers(one)}) for one in tried)


def _answers(one: Tried) -> dict[str, Any]:
    return {
        "pass_rate": round(one.pass_rate, 6),
        "answers": [
            {
                "text": attempt.text,
                "accepted": attempt.accepted,
                "total": attempt.scored.total,
                "scores": attempt.scored.scores,
                **({} if attempt.unusable is None else {"unusable": attempt.unusable}),
            }
            for attempt in one.attempts
        ],
    }


def read_tried(path: Path) -> tuple[Tried, ...]:
    """Raises DataInvalid with every fault and its line."""
    report = Report(path.name)
    tried = []
    for line, value in read_lines(path, report):
        faults, case = read_row(
            {key: item for key, item in value.items() if key not in _OURS}, shape="cases", line=line
        )
        attempts = _attempts(value.get("answers"))
        if attempts is None:
            faults.append("answers must be what tenon data sample wrote")
        for what in faults:
            report.fault(line, what)
        if not faults and attempts is not None and isinstance(case, Case):
            tried.append(Tried(case, attempts))
    if not tried and not report.found:
        report.fault(0, "has no rows")
    report.refuse()
    return tuple(tried)


def _attempts(value: Any) -> tuple[Attempt, ...] | None:
    if not isinstance(value, list) or not value:
        return None
    attempts = []
    for one in value:
        try:
            unusable = one.get("unusable")
            scored = Scored(dict(one["scores"]), float(one["total"]), bool(one["accepted"]))
            attempts.append(Attempt(str(one["text"]), scored, None if unusable is None else str(unusable)))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
    return tuple(attempts)


def filtered(
    tried: Sequence[Tried], *, keep: Keep, pass_rate: tuple[float, float], written: Written
) -> tuple[str, int]:
    """(the lines of the new file, how many). Pairs need a usable answer that was turned down as well."""
    rows = [
        row
        for one in tried
        if within(one.pass_rate, pass_rate)
        for row in _rows(one, keep=keep, written=written)
    ]
    return "".join(map(_dump, rows)), len(rows)


def _rows(one: Tried, *, keep: Keep, written: Written) -> Iterator[dict[str, Any]]:
    prompt = [message.as_dict() for message in one.case.prompt]
    if written == "cases":
        yield _case(one.case)
        return
    chosen = pick(one.attempts, keep)
    if written == "conversations":
        tools = {"tools": list(one.case.tools)} if one.case.tools else {}
        for attempt in chosen:
            yield {
                "messages": [*prompt, {"role": "assistant", "content": attempt.text}],
                **tools,
                **_tags(one.case),
            }
        return
    refused = [attempt for attempt in one.attempts if not attempt.accepted and attempt.unusable is None]
    if refused:
        worst = min(refused, key=lambda attempt: attempt.scored.total)
        for attempt in chosen:
            yield {
                "prompt": prompt,
                "chosen": attempt.text,
                "rejected": worst.text,
                **_tags(one.case),
            }


def _case(case: Case) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": case.id,
        "messages": [message.as_dict() for message in case.prompt],
        "facts": case.facts,
        "expect": case.expect,
        "answer": case.answer,
        "tools": list(case.tools),
        "columns": case.columns,
    }
    return {name: value for name, value in fields.items() if value} | _tags(case)


def _tags(case: Case) -> dict[str, Any]:
    return {"tags": list(case.tags)} if case.tags else {}


def _dump(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
