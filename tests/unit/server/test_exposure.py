"""Which answers an engine's bug could have touched: judged from what happened, not from versions alone."""

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import typer

from registry.clock import ManualClock, stamp
from registry.digests import Digest
from registry.errors import InvalidInput
from registry.fingerprint import Attestation, Nearest
from registry.log.entries import Entry
from registry.models import AliasState, EngineState
from registry.promotions import Preparation
from registry.signing.keys import Signer
from registry.signing.types import ATTESTATION
from router.limits import Cadence
from router.records import RecordFault, RecordLog, Trace, verify_records
from router.records.log import durable
from router.records.segments import Segments
from server.assembly.catalog import initialise
from server.cli import exposure as command
from server.exposure.boots import NEVER, Load, told
from server.exposure.events import EngineEvent, event_of, known, versions, within
from server.exposure.judge import Exposure, Question, judge
from tests.journeys.commands import tenon_here

START = datetime(2026, 1, 1, tzinfo=UTC)
BASE, KEY = Digest.of(b"base"), Signer("engine", b"e" * 32)
A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))


def at(seconds: float) -> str:
    return stamp(START + timedelta(seconds=seconds))


class Log:
    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, seconds: float, kind: str, subject: str, body: dict[str, Any]) -> None:
        index = len(self.entries)
        self.entries.append(
            Entry(index=index, at=at(seconds), actor="test", kind=kind, subject=subject, body=body)
        )

    def wanted(self, seconds: float, version: Digest, *, base: Digest = BASE) -> None:
        self.add(seconds, "version.pushed", version, {"manifest": {"base": base}})
        alias = AliasState(tenant="bank_a", adapter="desk", alias="live", version=version, epoch=1)
        self.add(seconds, "alias.moved", "bank_a/desk:live", {"alias": alias.model_dump(mode="json")})

    def prepared(self, seconds: float, version: Digest) -> None:
        self.add(seconds, "version.pushed", version, {"manifest": {"base": BASE}})
        preparation = Preparation(
            tenant="bank_a", adapter="desk", alias="live", version=version, epoch=0, until=at(seconds + 600)
        )
        body = {"preparation": preparation.model_dump(mode="json")}
        self.add(seconds, "promotion.prepared", "bank_a/desk:live", body)

    def announced(
        self, seconds: float, *, boot: str = "boot-0001", up: bool = True, version: str = "0.31.0"
    ) -> None:
        state = EngineState(
            engine="engine-0",
            boot=boot,
            url="http://engine-0",
            base=BASE,
            engine_version=version,
            dtype="float32",
            max_loras=4,
            up=up,
        )
        self.add(seconds, "engine.announced", f"engine-0/{boot}", {"engine": state.model_dump(mode="json")})

    def attested(self, seconds: float, version: Digest, *, boot: str = "boot-0001") -> None:
        finding = Attestation(
            engine="engine-0",
            boot=boot,
            engine_version="0.31.0",
            dtype="float32",
            base=BASE,
            version=version,
            fingerprint=BASE,
            contract=BASE,
            own_distance=0.0,
            nearest=Nearest(what="base", distance=1.0),
            strength="exact",
            passed=True,
            reason="",
            observed_at=at(seconds),
        )
        envelope = KEY.sign(ATTESTATION, finding.canonical())
        self.add(seconds + 1, "engine.attested", "x", {"envelope": envelope.model_dump(mode="json")})


def story() -> Log:
    """A and B are loaded at the start; C is wanted from 1,000 s on and seen at 1,060 s."""
    log = Log()
    log.wanted(0, A)
    log.wanted(0, B)
    log.announced(10)
    log.attested(20, A)
    log.attested(21, B)
    log.wanted(1000, C)
    log.attested(1060, C)
    return log


Answer = tuple[str, float, float]


def written(folder: Path, answers: Sequence[Answer], **changes: Any) -> Path:
    async def write() -> None:
        clock, cadence = ManualClock(START), Cadence(head_seconds=3600)
        segments = Segments(folder / "w", writer="w", segment_bytes=4000)
        log = RecordLog(segments, writer="w", clock=clock, cadence=cadence)
        await log.open()
        for name, start, end in answers:
            clock.advance((START + timedelta(seconds=end) - clock.now()).total_seconds())
            trace = Trace(id=name, tenant="bank_a", version=A, engine="engine-0", boot="boot-0001")
            trace.status, trace.started_at, trace.engine_version = 200, at(start), "0.31.0"
            for field, value in changes.items():
                setattr(trace, field, value)
            await durable(log.append("outcome", trace))
        await log.close()

    asyncio.run(write())
    return folder


def ask(folder: Path, log: Log, *, event: str = "vllm-47724", only: str = "", **changes: Any) -> Exposure:
    found = event_of(event) if event in known() else EngineEvent.build({**_ANY, "condition": event})
    question = Question(
        event=found,
        ranges=[versions(found.affected), versions(only)],
        **{"since": START, "until": START + timedelta(days=1), **changes},
    )
    return judge(folder, told(log.entries), question, verify_records(folder, {}, []))


_ANY = {"kind": "tenon.engine-event/v1", "id": "x", "title": "t", "source": "s", "affected": ""}
ANSWERS = [("early", 100, 101), ("before", 900, 994), ("during", 1010, 1011), ("long", 500, 1001)]
LATER = [("after", 1070, 1071), ("late", 2000, 2001)]


def names(found: Exposure) -> list[str]:
    return [each.record.id for each in found.touched]


def test_only_answers_under_way_during_a_load_are_touched(tmp_path: Path) -> None:
    found = ask(written(tmp_path, [*ANSWERS[:2], ANSWERS[3], ANSWERS[2], *LATER]), story())
    assert names(found) == ["long", "during"]
    assert found.answers == 6
    assert found.unjudged == []
    assert C.short in found.touched[0].why


def test_a_load_for_a_promotion_that_is_prepared_begins_with_the_preparation(tmp_path: Path) -> None:
    log = story()
    promoted, given_up = Digest.of(b"promoted"), Digest.of(b"given up")
    log.prepared(2000, promoted)
    log.attested(2060, promoted)
    log.wanted(2100, promoted)  # the alias moves when it is loaded everywhere
    log.prepared(3000, given_up)
    (load,) = [each for each in _loads(log) if each.version == promoted]
    assert (stamp(load.after), stamp(load.before), load.certain) == (at(2000), at(2060), True)
    (load,) = [each for each in _loads(log) if each.version == given_up]
    assert (stamp(load.after), load.before, load.certain) == (at(3000), NEVER, False)
    answers = [("before", 1900, 1994), ("during", 2020, 2021), ("after", 2066, 2067), ("late", 3010, 3011)]
    assert names(ask(written(tmp_path, answers), log)) == ["during", "late"]


def test_a_load_that_the_log_gives_no_reason_for_is_not_shortened(tmp_path: Path) -> None:
    log = story()
    log.attested(2060, Digest.of(b"unexplained"))
    log.wanted(2100, Digest.of(b"unexplained"))
    (load,) = [each for each in _loads(log) if each.version == Digest.of(b"unexplained")]
    assert (stamp(load.after), stamp(load.before)) == (at(1060), at(2060))
    assert names(ask(written(tmp_path, [("during", 2000, 2001)]), log)) == ["during"]


def _loads(log: Log) -> list[Load]:
    told_of = told(log.entries)
    return told_of.boots["engine-0", "boot-0001"].loads(told_of.wanted)


def test_clocks_that_may_be_apart_widen_a_load(tmp_path: Path) -> None:
    folder = written(tmp_path, [("before", 900, 994), ("after", 1070, 1071)])
    assert names(ask(folder, story(), slack=timedelta(seconds=7))) == ["before"]
    assert names(ask(folder, story(), slack=timedelta(seconds=11))) == ["before", "after"]


def test_old_records_know_only_how_long_they_took(tmp_path: Path) -> None:
    folder = written(tmp_path, [("old", 0, 1100)], started_at=None, engine_version=None, milliseconds=50_000)
    assert names(ask(folder, story())) == ["old"]
    folder = written(tmp_path / "quick", [("old", 0, 1100)], started_at=None, milliseconds=1000)
    assert names(ask(folder, story())) == []


def test_a_version_that_was_wanted_and_never_seen_may_have_been_loaded_any_time(tmp_path: Path) -> None:
    log = story()
    log.wanted(1500, Digest.of(b"never seen"))
    log.wanted(1500, Digest.of(b"of another base"), base=Digest.of(b"another"))
    found = ask(written(tmp_path, LATER), log)
    assert names(found) == ["late"]
    assert found.touched[0].why.count("perhaps") == 1
    log.announced(1800, boot="boot-0002")  # this boot had ended before the answer did
    assert names(ask(tmp_path, log)) == []


def test_other_conditions(tmp_path: Path) -> None:
    folder = written(tmp_path, [("early", 14, 15), *LATER])
    assert names(ask(folder, story(), event="always")) == ["early", "after", "late"]
    alone = Log()
    alone.wanted(0, A)
    alone.announced(10)
    alone.attested(20, A)
    assert names(ask(folder, alone, event="other_adapter_resident")) == []
    assert names(ask(folder, story(), event="other_adapter_resident")) == ["early", "after", "late"]


def test_version_tenant_and_span_narrow(tmp_path: Path) -> None:
    folder = written(tmp_path, [*ANSWERS[:2], *LATER])
    assert names(ask(folder, story(), event="always", only=">=0.32")) == []
    assert names(ask(folder, story(), event="always", only="==0.31.*", tenant="retail_b")) == []
    since = START + timedelta(seconds=950)
    assert names(ask(folder, story(), event="always", since=since)) == ["before", "after", "late"]
    assert names(ask(folder, story(), event="always", until=since)) == ["early", "before"]


def test_what_nobody_was_answered_is_no_answer(tmp_path: Path) -> None:
    folder = written(tmp_path, LATER, status=502, answer_of="body")
    assert ask(folder, story(), event="always").answers == 0
    folder = written(tmp_path / "stream", LATER, status=502, answer_of="content")
    assert ask(folder, story(), event="always").answers == 2


@pytest.mark.parametrize("changes", [{"boot": "boot-0009"}, {"engine_version": "0.32.0"}])
def test_a_record_that_the_log_does_not_know_is_not_judged(tmp_path: Path, changes: dict[str, str]) -> None:
    found = ask(written(tmp_path, LATER, **changes), story())
    assert names(found) == []
    assert [each.record for each in found.unjudged] == ["after", "late"]


def test_gaps_of_the_records_are_spans_that_cannot_be_judged(tmp_path: Path) -> None:
    folder = written(tmp_path, [(f"rec-{number}", number * 100, number * 100 + 1) for number in range(5)])
    (file,) = (folder / "w").glob("*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], lines[2].replace(b"bank_a", b"bank_b"), *lines[3:]]))
    (span,) = ask(folder, story(), event="always").unjudged
    assert (stamp(span.start), stamp(span.end)) == (at(101), at(301))
    file.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    found = ask(folder, story(), event="always")
    assert [(stamp(each.start), stamp(each.end)) for each in found.unjudged] == [(at(101), at(401))]
    assert ask(folder, story(), event="always", until=START + timedelta(seconds=50)).unjudged == []
    fault = RecordFault("gone", None, 7, "a signed head covers seq 7, the trail ends at none")
    question = Question(event_of("vllm-47724"), [], START, START + timedelta(days=1))
    (span,) = judge(folder / "none", told(story().entries), question, [fault]).unjudged
    assert (span.writer, span.start) == ("gone", START)


def test_events_and_versions() -> None:
    assert known() == ["vllm-47724"]
    with pytest.raises(InvalidInput, match="no event"):
        event_of("no-such-event")
    with pytest.raises(InvalidInput, match="range"):
        versions("latest")
    assert within("0.31.0+cpu", [versions("<0.32")])
    assert within("0.32.0rc1", [versions("<0.32.0rc2")])
    assert not within("0.32.0", [versions("<0.32"), versions("")])
    assert within("nightly-abc", [versions("<0.32")])


@pytest.mark.parametrize(
    "wrong",
    [
        ("--tenant", "bank_o"),
        ("--until", "2025-12-31T00:00:00Z"),
        ("--records", "/nowhere/at/all"),
    ],
)
def test_a_question_about_nothing_is_an_error_and_no_comfort(tmp_path: Path, wrong: tuple[str, str]) -> None:
    workspace = initialise(tmp_path / "workspace")
    asked = ("exposure", "--event", "vllm-47724", "--since", "2026-01-01T00:00:00Z")
    done = tenon_here(*asked, *wrong, "-w", str(workspace.root))
    assert done.code == 1
    assert "0 of 0" not in done.err + done.out
    assert "hint:" in done.err or "there is no" in done.err or "cannot be read" in done.err
    assert tenon_here(*asked, "-w", str(workspace.root)).code == 0


def test_the_command_says_what_it_cannot_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = initialise(tmp_path / "workspace")
    given: dict[str, Any] = {
        "event": "vllm-47724",
        "since": "2026-01-01T00:00:00Z",
        "engine_version": "",
        "until": None,
        "tenant": None,
        "clock_slack": 5.0,
        "records": None,
        "workspace": str(workspace.root),
    }
    command.exposure(**given, json=True)
    assert orjson.loads(capsys.readouterr().out)["unjudged"] == []
    written(workspace.records, LATER)
    with pytest.raises(typer.Exit) as ended:
        command.exposure(**given, json=True)
    assert ended.value.exit_code == 1
    unjudged = orjson.loads(capsys.readouterr().out)["unjudged"]
    assert [each["record"] for each in unjudged] == ["after", "late"]
    with sqlite3.connect(workspace.database) as rows:
        for (name,) in rows.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
            rows.execute(f'DROP TRIGGER "{name}"')
        rows.execute("UPDATE entries SET body = replace(body, 'router', 'engine') WHERE position = 4")
    rows.close()
    with pytest.raises(typer.Exit):
        command.exposure(**given, json=False)
    assert "cannot be judged: answers of log" in capsys.readouterr().err
