"""Sums of usage, as a bill or a chart wants them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from registry.usage import UsageLine


@dataclass(frozen=True, slots=True)
class Total:
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, line: UsageLine) -> "Total":
        return Total(
            self.requests + line.requests,
            self.prompt_tokens + line.prompt_tokens,
            self.completion_tokens + line.completion_tokens,
        )


def summed(lines: Iterable[UsageLine], *, by: Literal["version", "day"]) -> dict[str, Total]:
    """What a row is about -> its sums; the last one is of everything."""
    totals: dict[str, Total] = {}
    whole = Total()
    for line in lines:
        what = line.day if by == "day" else f"{line.tenant}/{line.adapter}@{line.version.short}"
        totals[what] = totals.get(what, Total()).plus(line)
        whole = whole.plus(line)
    return dict(sorted(totals.items())) | {"together": whole}
