"""One HTML page to look at: before and after per tenant, the answers side by side, who gave them, timings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.digests import Digest
from router.records.record import Record
from server.assembly.audit import Audit
from server.assembly.training import Live
from server.demo.ask import Answer, Attempt


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything the demo proved."""

    question: str
    answers: tuple[Answer, ...]
    attempts: tuple[Attempt, ...]
    attestations: Mapping[str, Digest]
    receipt: Path
    record: Record
    audit: Audit


def render(shown: Shown, trained: Mapping[str, Live], laps: Mapping[str, float]) -> str:
    """A page without scripts or outside resources: it can be mailed and opened anywhere."""
    from jinja2 import Environment, StrictUndefined

    template = (Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        shown=shown, trained=trained, laps=laps, total=sum(laps.values())
    )
