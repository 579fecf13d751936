"""What counts as handled while aliases move: by what clients got, and by what could have been done."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from registry.digests import Digest
from server.mixup.ground import Ground, Plan, Voice
from server.mixup.loading import Loader
from server.mixup.moving import Moving
from server.mixup.trace import Step, Trace
from server.mixup.versions import Known
from server.mixup.wire import Reply, Wire

ENDED = '{"code": "engine_interrupted"}'
BEGUN = Reply(status=500, text=ENDED, first_seconds=0.2)
NOT_BEGUN = Reply(status=500, text=ENDED)
NOT_RETRIED = Reply(status=502, text=ENDED)
LIMITED = Reply(status=429)


def said(version: str) -> Trace:
    return Trace("a", (Step("a", {"a": -0.1 - int(version[-1]), "b": -4.0}),))


@dataclass
class Two:
    """One tenant with two versions."""

    known: dict[str, Known] = field(default_factory=dict)
    shown: int = 0

    def __post_init__(self) -> None:
        for number in range(2):
            version = Digest.of(b"%d" % number)
            self.known[str(version)] = Known(version, "one", f"one/{number}")

    def promote(self, known: Known, *, percent: float = 100) -> None:
        self.shown = list(self.known.values()).index(known)

    def rollback(self, tenant: str) -> None:
        self.shown = 1 - self.shown

    def live(self, tenant: str) -> Known:
        return list(self.known.values())[self.shown]

    def come_and_go(self, ground: Ground, tenant: str, number: int) -> None:
        pass


class Scripted(Ground):
    """Right answers, but for what is in ``odd``."""

    odd: Iterator[Reply] = iter(())
    two: Two

    async def ask(self, name: str | None, prompt: str, **options: object) -> Reply:
        now = self.two.live("one")
        right = Reply(
            status=200,
            traces=(said(now.weights),),
            headers={"X-Tenon-Version": str(now.version)},
            finished=True,
        )
        return next(self.odd, right)


async def verdict(folder: Path, *odd: Reply, killed: bool = True) -> str:
    async def strike() -> int:
        return 3

    two = Two()
    ground = Scripted(
        wire=Wire("http://127.0.0.1:9"),
        loader=Loader(Wire("http://127.0.0.1:9"), "none"),
        plan=Plan(together=2, requests=40),
        folder=folder,
        voices={"one": Voice("assistant", "key")},
    )
    ground.odd, ground.two = iter(odd), two
    for known in two.known.values():
        for prompt in (*ground.prompts, ground.long_prompt):
            ground.references.add(known.weights, prompt, said(known.weights))
    ground.live["one"] = two.live("one").weights
    found = await Moving(two).churn(ground, 40, strike=strike if killed else None)
    assert found.figures["moves"] >= 1
    return found.outcome


@pytest.mark.parametrize(
    ("odd", "killed", "outcome"),
    [
        ([], True, "handled"),
        ([BEGUN, BEGUN], True, "handled"),
        ([BEGUN, BEGUN, BEGUN], True, "present"),
        ([BEGUN], False, "present"),
        ([NOT_BEGUN], True, "present"),
        ([NOT_RETRIED], True, "present"),
        ([Reply(status=404)], True, "present"),
        ([LIMITED], True, "handled"),
    ],
)
async def test_only_streams_that_had_begun_on_a_killed_engine_may_end(
    tmp_path: Path, odd: list[Reply], killed: bool, outcome: str
) -> None:
    assert await verdict(tmp_path, *odd, killed=killed) == outcome


async def test_an_answer_of_the_version_it_does_not_name_is_a_mixup(tmp_path: Path) -> None:
    two = Two()
    first, second = two.known.values()
    lies = Reply(
        status=200,
        traces=(said(second.weights),),
        headers={"X-Tenon-Version": str(first.version)},
        finished=True,
    )
    assert await verdict(tmp_path, lies) == "present"
