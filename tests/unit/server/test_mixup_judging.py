"""Whose answer it was, from log-probabilities or from words alone; and what becomes of it in a report."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.mixup import page
from bench.mixup.__main__ import PAGE, RESULT, TARGETS, merged, shortcomings, targets_on
from server.engines.versions import CERTIFIED
from server.mixup.controls import CONTROLS
from server.mixup.dangers import DANGERS
from server.mixup.errors import ReportUnusable
from server.mixup.finding import Finding, Tally
from server.mixup.judging import BASE, References
from server.mixup.report import COLUMNS, Report, differences, expectations
from server.mixup.targets import caught
from server.mixup.trace import Step, Trace, distance, steps_of
from server.mixup.wire import Reply

PROMPT = "a prompt"


def step(token: str, **top: float) -> Step:
    return Step(token, top)


def trace(*steps: Step) -> Trace:
    return Trace("".join(each.token for each in steps), steps)


ONE = trace(step("a", a=-0.1, b=-3.0), step("c", c=-0.2, d=-2.0), step("e", e=-0.5, f=-1.5))
TWO = trace(step("x", x=-0.1, b=-3.0), step("y", y=-0.2, z=-2.0))
NONE = trace(step("b", b=-0.4, a=-1.5), step("b", b=-0.2, a=-2.0))


def known(noise: float = 0.0) -> References:
    references = References(noise=noise)
    for weights, seen in (("one", ONE), ("two", TWO), (BASE, NONE)):
        references.add(weights, PROMPT, seen)
    return references


def judged(seen: Trace, weights: str = "one", noise: float = 0.0) -> tuple[str, str, int]:
    found = known(noise).judge(seen, weights=weights, prompt=PROMPT)
    return found.kind, found.nearest, found.at


def moved(seen: Trace, by: float) -> Trace:
    return trace(*(Step(each.token, {name: v + by for name, v in each.top.items()}) for each in seen.steps))


def test_ones_own_is_own_also_with_some_noise_and_cut_short() -> None:
    assert judged(ONE)[0] == "own"
    assert judged(moved(ONE, 0.02))[0] == "own"
    assert judged(ONE.cut(1))[0] == "own"


def test_anothers_is_anothers_by_name() -> None:
    assert judged(TWO)[:2] == ("other", "two")
    assert judged(NONE)[:2] == ("other", BASE)
    assert judged(ONE, weights="two")[:2] == ("other", "one")


def test_a_change_on_the_way_is_found_at_its_token() -> None:
    assert judged(trace(*ONE.steps[:2], TWO.steps[1]))[::2] == ("switched", 2)


def test_a_token_that_fell_the_other_way_by_a_hair_is_no_fault() -> None:
    near = step("d", c=-0.2, d=-2.0)
    assert judged(trace(ONE.steps[0], near, TWO.steps[1]))[0] == "own"


def test_what_is_nobodys_is_altered() -> None:
    assert judged(trace(step("q", q=-9.0, r=-11.0)))[0] == "altered"


def test_between_two_it_cannot_be_told_and_is_not_passed() -> None:
    between = {
        name: (ONE.steps[0].top.get(name, -3.0) + NONE.steps[0].top.get(name, -3.0)) / 2 for name in "ab"
    }
    assert judged(trace(Step("a", between)))[0] == "unclear"


def test_references_that_noise_could_confuse_tell_nothing() -> None:
    assert judged(ONE, noise=1.0)[0] == "unclear"
    assert judged(TWO, noise=1.0)[0] == "unclear"


def test_noise_is_what_two_quiet_recordings_differ_by() -> None:
    references = References()
    references.add("one", PROMPT, ONE, moved(ONE, 0.01))
    assert references.noise == pytest.approx(0.01)


def test_adapters_without_effect_are_seen_before_anything_is_asked() -> None:
    references = known()
    assert references.alike() == []
    references.add("copy", PROMPT, moved(NONE, 1e-6))
    assert references.alike() == [(BASE, "copy")]


@pytest.mark.parametrize(
    ("said", "kind"), [("alpha", "own"), ("beta", "other"), ("gamma", "altered"), ("same", "unclear")]
)
def test_words_alone_are_enough_to_see_the_plain_cases(said: str, kind: str) -> None:
    references = References()
    own = "same" if said == "same" else "alpha"
    references.add("one", PROMPT, Trace(own, ()))
    references.add("two", PROMPT, Trace("same" if said == "same" else "beta", ()))
    assert references.judge(Trace(said, ()), weights="one", prompt=PROMPT).kind == kind


tops = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-20, 0), min_size=1, max_size=5)


@given(tops, tops)
def test_distance_is_a_distance(one: dict[str, float], other: dict[str, float]) -> None:
    a, b = Step("a", one), Step("b", other)
    assert distance(a, a) == 0
    assert distance(a, b) == distance(b, a) >= 0


def test_the_chosen_token_beyond_the_likely_ones_says_nothing_of_the_weights() -> None:
    top = {name: -float(at) for at, name in enumerate("abcde")}
    plain = steps_of({"tokens": ["a"], "token_logprobs": [0.0], "top_logprobs": [top]})
    drawn = steps_of({"tokens": ["q"], "token_logprobs": [-9.0], "top_logprobs": [{**top, "q": -9.0}]})
    assert distance(plain[0], drawn[0]) == 0


@pytest.mark.parametrize("odd", [None, 3, {}, {"tokens": None}, {"tokens": ["a"], "token_logprobs": []}])
def test_log_probabilities_of_another_shape_are_none(odd: Any) -> None:
    assert steps_of(odd) == ()


def answer(*traces: Trace, status: int = 200) -> Reply:
    return Reply(status=status, traces=traces, finished=True)


def test_one_wrong_choice_among_several_counts() -> None:
    tally = Tally("Q1", known())
    tally.count(answer(ONE, TWO), weights="one", prompt=PROMPT)
    tally.count(answer(ONE), weights="one", prompt=PROMPT)
    found = tally.by_answers(handled="fine")
    assert (found.outcome, found.mixups, found.requests) == ("present", 1, 2)
    assert (found.examples[0].asked, found.examples[0].nearest) == ("one", "two")
    assert PROMPT not in repr(found)


NOBODYS = trace(step("q", q=-9.0, r=-11.0))
SWITCHED = trace(*ONE.steps[:2], TWO.steps[1])


@pytest.mark.parametrize(("kind", "seen"), [("other", TWO), ("switched", SWITCHED), ("altered", NOBODYS)])
def test_every_wrong_kind_is_a_mix_up_that_no_right_answers_outweigh(kind: str, seen: Trace) -> None:
    """Altered is what D7 is about: the old weights' cache and the new weights make an answer of neither."""
    tally = Tally("D7", known())
    for _ in range(99):
        tally.count(answer(ONE), weights="one", prompt=PROMPT)
    tally.count(answer(seen), weights="one", prompt=PROMPT)
    found = tally.by_answers(handled="fine")
    assert (found.outcome, found.mixups, found.unclear) == ("present", 1, 0)
    assert [each.kind for each in found.examples] == [kind]
    assert not replace(report(), findings=(found, *report().findings[1:])).passed


def test_judged_are_the_answers_whose_content_was_compared() -> None:
    tally = Tally("D2", known())
    for reply in (answer(ONE), answer(TWO), answer(NOBODYS), Reply(status=404), Reply(status=500)):
        tally.count(reply, weights="one", prompt=PROMPT)
    tally.count(replace(answer(ONE), moved=True), weights="one", prompt=PROMPT)
    tally.note(200)
    tally.note(401)
    found = tally.by_answers(handled="fine")
    assert (found.requests, found.judged) == (8, 3)
    seen = replace(report(), findings=(found, replace(found, judged=4)))
    assert seen.judged == seen.document()["judged"] == 7
    assert seen.document()["findings"][1]["judged"] == 4
    row = dict(zip(COLUMNS, seen.rows()[1], strict=True))
    assert (row["requests"], row["judged"]) == ("8", "4")


@pytest.mark.parametrize("status", [0, 404, 500])
def test_without_an_answer_nothing_is_handled(status: int) -> None:
    tally = Tally("Q1", known())
    tally.count(Reply(status=status), weights="one", prompt=PROMPT)
    assert tally.by_answers(handled="fine").outcome == "not_tested"
    assert tally.by_answers(handled="fine", refusing_handles=True).outcome == "not_tested"


@pytest.mark.parametrize("status", [0, 200, 404, 500])
@pytest.mark.parametrize(("right", "outcome"), [(1, "not_tested"), (94, "not_tested"), (95, "handled")])
def test_few_right_answers_handle_nothing(status: int, right: int, outcome: str) -> None:
    """Status 200: an answer that cannot be told from another's."""
    between = trace(Step("a", {name: (ONE.steps[0].top.get(name, -3.0) - 0.4) / 2 for name in "ab"}))
    assert judged(between)[0] == "unclear"
    tally = Tally("Q1", known())
    for at in range(100):
        other = answer(between) if status == 200 else Reply(status=status)
        tally.count(answer(ONE) if at < right else other, weights="one", prompt=PROMPT)
    assert tally.by_answers(handled="fine").outcome == outcome
    refusing = tally.by_answers(handled="fine", refusing_handles=True).outcome
    assert refusing == ("handled" if status == 404 else outcome)
    assert tally.by_answers(handled="fine", excused=100 - right).outcome == "handled"
    assert replace(report(), findings=(tally.finding("not_tested", ""), *report().findings)).passed is (
        status == 404
    )


def test_failures_are_told_by_their_codes() -> None:
    tally = Tally("Q1", known())
    tally.count(
        Reply(status=503, text='{"error": {"code": "adapter_not_ready"}}'), weights="one", prompt=PROMPT
    )
    tally.count(Reply(status=0, text="TimeoutError"), weights="one", prompt=PROMPT)
    assert tally.by_answers(handled="").figures == {"failed: 503 adapter_not_ready": 1, "failed: 0": 1}


def test_unclear_answers_alone_handle_nothing() -> None:
    tally = Tally("Q1", known(noise=1.0))
    tally.count(answer(ONE), weights="one", prompt=PROMPT)
    assert tally.by_answers(handled="fine", refusing_handles=True).outcome == "not_tested"


def report(target: str = "ours", **outcomes: Any) -> Report:
    findings = tuple(
        Finding(
            danger=danger, outcome=outcomes.get(danger, "handled"), why=f"why {danger}", requests=10, judged=4
        )
        for danger in DANGERS
    )
    return Report(target=target, seed=0, findings=findings, seconds=1.0, noise=0.0, gap=0.5)


def test_a_report_passes_only_on_proof() -> None:
    assert report().passed
    assert not report(D7="present").passed
    assert not report(**dict.fromkeys(DANGERS, "not_tested")).passed
    mixed = report()
    assert not replace(mixed, findings=(replace(mixed.findings[0], mixups=1), *mixed.findings[1:])).passed


def test_a_report_survives_json_and_is_what_the_next_is_compared_with() -> None:
    before = report(D1="present")
    data = json.dumps(before.document()).encode()
    assert differences(before, expectations(data)) == []
    assert differences(report(), expectations(data)) == ["D1: expected present, found handled"]
    assert before.document()["requests"] == 10 * len(DANGERS)
    assert math.isfinite(before.document()["gap"])


@pytest.mark.parametrize("odd", [b"", b"[]", b'{"D99": "handled"}', b'{"D1": "fine"}', b'{"verdicts": 3}'])
def test_what_is_no_report_is_refused(odd: bytes) -> None:
    with pytest.raises(ReportUnusable):
        expectations(odd)


def test_a_control_counts_only_if_it_is_caught_and_nothing_else_is_broken() -> None:
    for name, control in CONTROLS.items():
        right = report(name, **{control.caught_by: "present"})
        assert caught(control, right) == []
        assert caught(control, report(name))
        assert caught(control, report(name, **{control.caught_by: "present", "Q1": "present"}))


def test_the_page_and_the_result_hold_every_verdict() -> None:
    result: dict[str, Any] = {}
    for each in (report(), report("bare", D1="present", D2="not_tested")):
        result = merged(result, each, commit="c0ffee")
    assert shortcomings(result) == []
    assert result["requests"] == 10 * len(DANGERS)
    text = page.render(result)
    assert "| requests | judged | mix-ups |" in text
    del result["reports"]["bare"]["judged"]
    assert "| 180 | 72 | 0 |" in page.render(result)
    assert "| 180 |  | 0 |" in page.render(result)
    assert f"| D1 | {DANGERS['D1'].title} | handled | **present** |" in text
    assert f"| D2 | {DANGERS['D2'].title} | handled | not tested |" in text
    for control in CONTROLS.values():
        result = merged(result, report(control.name), commit="c0ffee")
    assert len(shortcomings(result)) == len(CONTROLS)
    for each in result["reports"].values():  # as reports were before answers judged were counted
        each.pop("judged", None)
    assert "| judged |" not in page.render(result)
    worse = merged(result, report(D3="present"), commit="c0ffee")
    assert "ours: not handled: D3" in shortcomings(worse)[0]


def test_what_only_the_time_shows_is_no_control_on_a_gpu() -> None:
    """The demo's base answers there as fast without its cache."""
    assert targets_on("cpu") == TARGETS
    assert set(TARGETS) - set(targets_on("cuda")) == {"cache-denied"}


def test_a_certified_version_is_one_that_was_measured() -> None:
    result = json.loads(RESULT.read_bytes())
    assert PAGE.read_text(encoding="utf-8") == page.render(result)
    assert shortcomings(result) == []
    assert set(TARGETS) < set(result)
    assert set(result["ours"].values()) == {"handled"}
    assert result["requests"] >= 2000
    assert result["mixups"] == 0
    assert {version for version, _ in CERTIFIED} == {
        each["server"]["version"] for each in result["reports"].values()
    }
