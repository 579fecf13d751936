"""``tenon data sample`` and ``filter``: from questions to training data, from a base and from an endpoint."""

import json
from pathlib import Path

import pytest

from server.demo.tasks.distillation import questions
from tests.journeys.commands import Done, tenon
from tests.support.endpoint_server import refusal, said, serving
from tests.support.tiny_model import write_jsonl
from trainer.datasets import load_rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("sampling") / "workspace"
    for command in (("init", str(workspace)), ("base", "add", "demo", "demo", "-w", str(workspace))):
        done = tenon(*command)
        assert done.code == 0, done.err
    return workspace


def sample(place: Path, folder: Path, *more: str) -> Done:
    return tenon(
        "data", "sample", str(folder / "cases.jsonl"), "-O", str(folder / "sampled.jsonl"), "--json",
        "-w", str(place), *more,
    )  # fmt: skip


def test_best_of_n_from_a_base(place: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "cases.jsonl", questions(6))
    done = sample(place, tmp_path, "--base", "demo", "--verifier", "valid_json", "--samples", "3")
    assert done.code == 0, done.err
    figures = json.loads(done.out)
    assert (figures["questions"], figures["answered"]) == (6, 18)
    assert figures["accepted"] >= 16
    assert not (tmp_path / ".sampled.jsonl.answers").exists()
    out = tmp_path / "train.jsonl"
    done = tenon("data", "filter", str(tmp_path / "sampled.jsonl"), "-O", str(out), "--json")
    assert json.loads(done.out) == {"questions": 6, "rows": 6}
    rows = load_rows(out, shape="conversations").rows
    assert all(json.loads(row.messages[-1].content) for row in rows)


def test_an_endpoint_that_went_away_is_asked_the_rest(place: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "cases.jsonl", questions(5))
    with serving(lambda body, number: said("{}") if number < 4 else refusal(402)) as server:
        given = ("--endpoint", server.url, "--model", "m", "--verifier", "valid_json", "--samples", "1")
        done = sample(place, tmp_path, *given)
        assert (done.code, "402" in done.err, "are kept" in done.err) == (1, True, True), done.err
        assert not (tmp_path / "sampled.jsonl").exists()
        kept = len((tmp_path / ".sampled.jsonl.answers").read_text().splitlines())
        server.reply = lambda body, number: said("not JSON")
        asked = len(server.seen)
        done = sample(place, tmp_path, *given)
        assert done.code == 0, done.err
        assert len(server.seen) - asked == 5 - kept
    assert json.loads(done.out)["accepted"] == kept == 3


def test_what_makes_no_sense_is_refused(place: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "cases.jsonl", questions(2))
    for more in (
        ("--verifier", "policy"),
        ("--verifier", "policy", "--base", "demo", "--version", "bank_a/x:live"),
        ("--verifier", "policy", "--endpoint", "http://127.0.0.1:1/v1"),
        ("--base", "demo"),
    ):
        assert sample(place, tmp_path, *more).code == 2
    done = sample(place, tmp_path, "--base", "demo", "--verifier", "nonsense")
    assert (done.code, "'nonsense' is not one of" in done.err) == (1, True)
    sampled = write_jsonl(tmp_path / "s.jsonl", [{"prompt": "x", "answers": [
        {"text": "y", "accepted": False, "total": 0, "scores": {}}]}])  # fmt: skip
    out = str(tmp_path / "out.jsonl")
    done = tenon("data", "filter", str(sampled), "-O", out)
    assert (done.code, "none of 1 questions" in done.err) == (1, True)
    assert tenon("data", "filter", str(sampled), "-O", out, "--pass-rate", "0.9..0.1").code == 2
    assert not (tmp_path / "out.jsonl").exists()
