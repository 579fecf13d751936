"""What ``tenon doctor`` says of engines that run and do not serve what they should."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry.digests import Digest
from server.assembly import diagnosis
from server.assembly.processes import Process
from server.assembly.unready import obstacles
from server.cli import doctor
from server.engines.agent_app import create_agent_app
from server.engines.state import AgentState, Why
from tests.support.remote import serving

BAD, WAITING = Digest.of(b"bad"), Digest.of(b"waiting")


class _Agent:
    """What the agent's app needs of an agent."""

    def __init__(self, state: AgentState) -> None:
        self.state = state


@contextmanager
def _engine(state: AgentState) -> Iterator[Process]:
    """This very process, as the engine of a workspace."""
    with serving(create_agent_app(_Agent(state))) as url:  # type: ignore[arg-type]
        yield Process.own("engine-1", "logs/engine-1.log").model_copy(update={"url": url})


def _said(state: AgentState) -> list[diagnosis.Finding]:
    with _engine(state) as process:
        return diagnosis._process(process)


def _up(**more: object) -> AgentState:
    return AgentState("engine-1", "serving", boot="boot-0001", up=True, settled=True, **more)  # type: ignore[arg-type]


def test_an_engine_that_serves_what_it_should_is_ok() -> None:
    (found,) = _said(_up())
    assert (found.ok, found.warning, found.check) == (True, False, "engine-1")
    assert found.found.startswith("http://127.0.0.1:")


def test_what_failed_is_a_warning_with_its_reason_and_the_next_step() -> None:
    missing = {
        BAD: Why("attestation_failed: it behaves as the base", blocks=True),
        WAITING: Why("not attested yet", blocks=True),
    }
    found = {each.found: each for each in _said(_up(not_ready=missing))}
    assert {(each.ok, each.warning) for each in found.values()} == {(False, True)}
    failed = found[f"not in service: {BAD.short}: attestation_failed: it behaves as the base"]
    assert "publish it again or restart the engine" in failed.hint
    other = found[f"not in service: {WAITING.short}: not attested yet"]
    assert other.hint == "wait a moment; if it stays so, read logs/engine-1.log"


def test_what_a_boot_waits_for_is_a_warning_also_while_all_is_ready() -> None:
    (found,) = _said(_up(waits_for="other engines, to serve what this one serves (a larger rank)"))
    assert (found.ok, found.warning) == (False, True)
    assert "waits for other engines, to serve what this one serves (a larger rank)" in found.found
    assert "docs/concepts/engines.md" in found.hint


def test_an_engine_that_starts_says_what_it_does() -> None:
    (found,) = _said(AgentState("engine-1", "starting vLLM"))
    assert found.found == "not ready yet: starting vLLM"
    assert found.warning


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (0, b"", "does not answer"),
        (404, b"<html>", "404"),
        (200, b"[]", "200"),
        (200, b'{"doing": "x", "waits_for": "", "not_ready": 3}', "200"),
    ],
)
def test_what_is_no_answer_of_an_agent(status: int, body: bytes, says: str) -> None:
    (found,) = obstacles(status, body, log="x.log")
    assert says in found.what
    assert "x.log" in found.advice


def test_many_versions_are_a_few_rows() -> None:
    many = {Digest.of(b"%d" % number): Why("not attested yet", blocks=True) for number in range(40)}
    found = _said(_up(not_ready=many))
    assert len(found) == 6
    assert found[-1].found == "not in service: 35 more versions"


def test_one_that_ended_fails_and_others_are_asked_nothing() -> None:
    gone = Process(role="engine", pid=os.getpid(), born=0, url="http://127.0.0.1:1", log="x.log")
    (found,) = diagnosis._process(gone)
    assert (found.ok, found.warning, found.found) == (False, False, "ended")
    (router,) = diagnosis._process(Process.own("router"))
    assert router.ok


@pytest.mark.parametrize(("warning", "code", "word"), [(True, 0, "warn"), (False, 1, "FAIL")])
def test_a_warning_is_no_failure_of_the_command(
    warning: bool,
    code: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [diagnosis.Finding("engine", ok=False, found="x", hint="do it", warning=warning)]
    monkeypatch.setattr(diagnosis, "diagnose", lambda root: found)
    ended = 0
    try:
        doctor.doctor(json=False, workspace=str(tmp_path))
    except SystemExit as end:
        ended = int(str(end.code))
    assert ended == code
    row = next(line for line in capsys.readouterr().out.splitlines() if "engine" in line)
    assert row.split()[0] == word
    assert "do it" in row
