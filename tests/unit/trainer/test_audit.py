"""What the audit finds, each on a small file that has exactly that fault, and nothing on a sound one."""

import json
from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from tests.support.tiny_model import write_jsonl
from trainer.datasets import Dataset, Shape, load_rows
from trainer.datasets.audit import Audit, audit
from trainer.datasets.audit.languages import language
from trainer.datasets.audit.near import likeness, pieces, within
from trainer.datasets.audit.personal import found, masked
from trainer.datasets.audit.refusals import refuses

INTENTS = ("transfer", "budget")
BRANCHES = ("small", "large")
NAMES = ("Norvik", "Baldane", "Kellund", "Marstad", "Fennova", "Soltec", "Ariberg", "Osgram")


def row(number: int, **more: Any) -> dict[str, Any]:
    name = NAMES[number % len(NAMES)]
    return {
        "prompt": f"Please {INTENTS[number % 2]} {number * 37 + 11} EUR for the office of {name}",
        "completion": json.dumps({"payee": name, "amount": str(number * 37 + 11), "note": "It is done."}),
        "tags": [f"intent:{INTENTS[number % 2]}", f"branch:{BRANCHES[number // 2 % 2]}"],
        **more,
    }


def case(number: int, **more: Any) -> dict[str, Any]:
    name = NAMES[number % len(NAMES)]
    return {
        "prompt": f"Would you {INTENTS[number % 2]} the sum of {number * 41 + 5} USD with {name}, thank you",
        "facts": {"amount": str(number * 41 + 5)},
        "tags": [f"intent:{INTENTS[number % 2]}", f"branch:{BRANCHES[number // 2 % 2]}"],
        **more,
    }


ROWS = [row(number) for number in range(24)]
CASES = [case(number) for number in range(8)]


def dataset(folder: Path, name: str, rows: list[dict[str, Any]], shape: Shape) -> Dataset[Any]:
    return load_rows(write_jsonl(folder / f"{name}.jsonl", rows), shape=shape)


def audited(
    folder: Path,
    rows: list[dict[str, Any]],
    cases: list[dict[str, Any]] | None = None,
    *,
    shape: Shape = "conversations",
    **more: Any,
) -> Audit:
    train = dataset(folder, "train", rows, shape)
    held = None if cases is None else dataset(folder, "cases", cases, "cases")
    return audit(train, held, **more)


def told(found: Audit) -> list[tuple[str, str]]:
    return [(one.severity, one.check) for one in found.findings]


def test_sound_data_have_no_findings(tmp_path: Path) -> None:
    report = audited(tmp_path, ROWS, CASES)
    assert report.findings == ()
    assert report.counts == {"error": 0, "warning": 0, "note": 0}
    assert report.train is not None
    assert report.train.digest == Digest.of_file(tmp_path / "train.jsonl")
    cells = report.figures["coverage"]["cells"]
    assert sum(cell["train"] for cell in cells) == 24
    assert {(cell["intent"], cell["branch"]) for cell in cells} == {
        (intent, branch) for intent in INTENTS for branch in BRANCHES
    }


def test_the_same_data_give_the_same_digest_and_other_data_another(tmp_path: Path) -> None:
    first = audited(tmp_path, ROWS, CASES)
    assert audited(tmp_path, ROWS, CASES).identity() == first.identity()
    assert audited(tmp_path, ROWS[1:], CASES).identity() != first.identity()


def test_repeated_rows_are_named(tmp_path: Path) -> None:
    (finding,) = audited(tmp_path, [*ROWS, ROWS[3], ROWS[3]]).findings
    assert (finding.severity, finding.check) == ("warning", "duplicates")
    assert finding.what == "train.jsonl: 2 of its rows say what an earlier row says, first line 25"
    assert finding.places == ("train.jsonl:25", "train.jsonl:26")


def test_near_duplicates_are_named_with_their_likeness(tmp_path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(40))
    near = [{"prompt": words, "completion": "a"}, {"prompt": f"{words} more", "completion": "a"}]
    report = audited(tmp_path, [*ROWS, *near])
    (finding,) = [one for one in report.findings if one.check == "duplicates"]
    assert finding.severity == "note"
    assert "train.jsonl:26 is 96% of train.jsonl:25" in finding.what
    assert report.figures["duplicates"] == {"exact": 0, "near": 1}
    assert audited(tmp_path, [*ROWS, *near], near=False).figures["duplicates"]["near"] is None


def test_one_question_with_two_answers(tmp_path: Path) -> None:
    torn = {**ROWS[0], "completion": ROWS[1]["completion"]}
    findings = audited(tmp_path, [*ROWS, torn], near=False).findings
    assert [one.what for one in findings] == [
        "questions that are asked more than once and answered differently: 1"
    ]
    assert findings[0].places == ("train.jsonl:1", "train.jsonl:25")


def test_a_leak_is_an_error_and_a_near_leak_a_warning(tmp_path: Path) -> None:
    long = "Please check the invoice of " + " and ".join(NAMES) + " for the finance desk"
    rows = [*ROWS, {**row(24), "prompt": long}]
    same = {**case(8), "prompt": f"  {ROWS[0]['prompt'].upper()} "}
    alike = {**case(9), "prompt": f"{long}!  Now"}
    report = audited(tmp_path, rows, [*CASES, same, alike])
    leaks = [one for one in report.findings if one.check == "leakage"]
    assert [(one.severity, one.places) for one in leaks] == [
        ("error", ("cases.jsonl:9",)),
        ("warning", ("cases.jsonl:10",)),
    ]
    assert "near duplicates of one in train.jsonl: 1; cases.jsonl:10 is" in leaks[1].what
    assert leaks[1].what.endswith("of train.jsonl:25")


@pytest.mark.parametrize(
    ("prompt", "completion", "told_already"),
    [
        ("Which? The refund goes to the desk on Monday morning.", "The refund goes to the desk", True),
        ("Is it a refund or a claim? Answer: refund", "refund", True),
        ("Is it a refund or a claim? (correct is refund)", "Refund.", True),
        ("Is it a refund or a claim?", "refund", False),
        ("Is it a refund or a claim? Answer: refunded", "refund", False),
        ("The answer is short", "long", False),
    ],
)
def test_a_question_that_contains_its_answer(
    tmp_path: Path, prompt: str, completion: str, told_already: bool
) -> None:
    rows = [*ROWS, {"prompt": prompt, "completion": completion}]
    places = [one.places for one in audited(tmp_path, rows).findings if one.check == "leakage"]
    assert places == ([("train.jsonl:25",)] if told_already else [])


def test_what_a_tool_returned_may_be_repeated(tmp_path: Path) -> None:
    call = {"function": {"name": "rate", "arguments": {}}}
    said = "The rate is 1.1 today"
    trajectory = {
        "messages": [
            {"role": "user", "content": "Which rate?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": said},
            {"role": "assistant", "content": said},
        ],
        "tools": [{"function": {"name": "rate"}}],
    }
    assert ("warning", "leakage") not in told(audited(tmp_path, [trajectory]))


def test_a_branch_that_is_asked_and_never_shown_is_an_error(tmp_path: Path) -> None:
    rows = [one for one in ROWS if "branch:large" not in one["tags"]]
    (finding,) = audited(tmp_path, rows, CASES).findings
    assert (finding.severity, finding.check) == ("error", "coverage")
    assert finding.what == "the branch large is asked 4 times and never shown: add winning examples of it"
    assert finding.places == ("cases.jsonl:3", "cases.jsonl:4", "cases.jsonl:7", "cases.jsonl:8")


def test_a_branch_that_is_shown_for_other_intents_only_is_a_warning(tmp_path: Path) -> None:
    rows = [one for one in ROWS if one["tags"] != ["intent:budget", "branch:large"]]
    (finding,) = audited(tmp_path, rows, CASES).findings
    assert finding.severity == "warning"
    assert finding.what == "the branch large is never shown for the intent budget, and asked 2 times"


def test_an_unwanted_example_wins_nothing(tmp_path: Path) -> None:
    rows = [
        {**one, "label": "branch:large" not in one["tags"]}
        for one in ROWS
    ]  # fmt: skip
    report = audited(tmp_path, rows, CASES, shape="labelled")
    assert ("error", "coverage") in told(report)


def test_a_branch_that_is_only_ever_wrong_is_an_error_without_cases_too(tmp_path: Path) -> None:
    rows = [{**one, "label": "branch:large" not in one["tags"]} for one in ROWS]
    unasked = [one for one in CASES if "branch:large" not in one["tags"]]
    for cases in (None, unasked):
        (finding,) = [one for one in audited(tmp_path, rows, cases, shape="labelled").findings
                      if one.check == "coverage"]  # fmt: skip
        assert finding.severity == "error"
        assert (
            finding.what
            == "the branch large is never shown right, and wrong 12 times: add winning examples of it"
        )
        assert len(finding.places) == 12
    for mended in ([*rows, {**row(2, prompt="Once more"), "label": True}], rows[:2]):
        assert ("error", "coverage") not in told(audited(tmp_path, mended, shape="labelled"))


def test_rows_that_are_all_wrong_are_tagged_nevertheless(tmp_path: Path) -> None:
    rows = [{**one, "label": False} for one in ROWS]
    found = [
        one for one in audited(tmp_path, rows, CASES, shape="labelled").findings if one.check == "coverage"
    ]
    assert [one.severity for one in found] == ["error", "error"]
    assert {one.what.split(" is ")[0] for one in found} == {"the branch small", "the branch large"}


def test_rows_without_tags_cannot_be_judged(tmp_path: Path) -> None:
    bare = [{key: value for key, value in one.items() if key != "tags"} for one in ROWS]
    assert told(audited(tmp_path, bare, CASES)) == [("warning", "coverage")]
    untagged = [{**one, "tags": []} for one in CASES]
    assert told(audited(tmp_path, bare, untagged)) == []


def test_lengths_have_a_histogram_and_drift_is_a_warning(tmp_path: Path) -> None:
    long = [case(number, prompt=f"{'please ' * 40}{CASES[number]['prompt']}") for number in range(8)]
    report = audited(tmp_path, ROWS, long, near=False)
    assert ("warning", "lengths") in told(report)
    spread = report.figures["lengths"]["train"]["questions"]
    assert sum(spread["histogram"]["counts"]) == 24
    assert spread["words"]["min"] <= spread["words"]["median"] <= spread["words"]["max"]
    assert "tokens" not in spread


def test_rows_over_the_limit_are_errors_when_tokens_are_counted(tmp_path: Path) -> None:
    rows = [*ROWS, row(24, completion=json.dumps({"payee": "x" * 500, "amount": "1", "note": "It is done."}))]
    report = audited(tmp_path, rows, count=len, limit=300)
    (finding,) = [one for one in report.findings if one.severity == "error"]
    assert (finding.check, finding.places) == ("lengths", ("train.jsonl:25",))
    assert report.figures["lengths"]["train"]["answers"]["tokens"]["max"] > 500


def test_an_answer_of_another_size_is_a_note(tmp_path: Path) -> None:
    rows = [*ROWS, row(24, completion="word " * 300)]
    findings = [one for one in audited(tmp_path, rows).findings if one.check == "lengths"]
    assert [(one.severity, one.places) for one in findings] == [("note", ("train.jsonl:25",))]


def test_pairs_that_differ_in_length_teach_length(tmp_path: Path) -> None:
    pairs = [
        {"prompt": f"question {number}", "chosen": "a " * 8 + str(number), "rejected": f"b {number}"}
        for number in range(9)
    ]
    (finding,) = audited(tmp_path, pairs, shape="pairs", near=False).findings
    assert finding.what.startswith("chosen answers have 4.5 times the words of rejected ones")
    even = [{**one, "rejected": "b " * 8 + "c"} for one in pairs]
    assert audited(tmp_path, even, shape="pairs", near=False).findings == ()


@pytest.mark.parametrize(
    ("completion", "says"),
    [
        ("plain text", "answers that are not JSON, unlike the others: 1 of 25"),
        (json.dumps({"note": "It is done.", "amount": "1", "payee": "x"}), "keys of others in another order"),
        ('```json\n{"payee": "x"}\n```', "answers that begin with a code fence, unlike the others: 1 of 25"),
    ],
)
def test_an_answer_of_another_style(tmp_path: Path, completion: str, says: str) -> None:
    rows = [*[row(number) for number in range(24)], row(24, completion=completion)]
    if "JSON, unlike" in says:
        rows = [*[row(number) for number in range(99)], row(99, completion=completion)]
        says = says.replace("25", "100")
    findings = [one for one in audited(tmp_path, rows, near=False).findings if one.check == "style"]
    assert any(says in one.what and one.places[-1] == f"train.jsonl:{len(rows)}" for one in findings)


def test_half_and_half_is_a_mixture(tmp_path: Path) -> None:
    rows = [row(number, **({} if number % 2 else {"completion": f"Done, {number}"})) for number in range(24)]
    (finding,) = [one for one in audited(tmp_path, rows).findings if one.check == "style"]
    assert finding.what.startswith("50% of the answers are JSON and the rest is not")


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can’t help with that.", True),
        ("I cannot share another client's balance.", True),
        ("I am not able to release this without approval.", True),
        ("Das kann ich leider nicht freigeben.", True),
        ("The transfer is released.", False),
        ("The manager said: can I not pay later?", False),
        ("Done. " * 40 + "I can't say more.", False),
    ],
)
def test_refusals_are_known_by_how_they_begin(text: str, refused: bool) -> None:
    assert refuses(text) is refused


def test_refusals_are_balanced_on_both_sides(tmp_path: Path) -> None:
    no = "I cannot do that for you."
    many = [row(number, **({"completion": no} if number % 3 else {})) for number in range(24)]
    answered = [case(number, answer="Fine." if number else no) for number in range(8)]
    assert ("warning", "refusals") in told(audited(tmp_path, many))
    (finding,) = [one for one in audited(tmp_path, ROWS, answered).findings if one.check == "refusals"]
    assert finding.what == "12% of the held-out answers refuse, and no row of train.jsonl shows how"
    some = [row(number, **({} if number % 8 else {"completion": no})) for number in range(24)]
    never = [case(number, answer="Fine.") for number in range(8)]
    assert ("note", "refusals") in told(audited(tmp_path, some, never))


def test_labels_of_one_kind_teach_nothing(tmp_path: Path) -> None:
    def labelled(right: int) -> list[dict[str, Any]]:
        rows = [{**one, "label": place < right} for place, one in enumerate(ROWS)]
        return [{key: value for key, value in one.items() if key != "tags"} for one in rows]

    assert told(audited(tmp_path, labelled(24), shape="labelled")) == [("error", "labels")]
    assert told(audited(tmp_path, labelled(1), shape="labelled")) == [("warning", "labels")]
    assert told(audited(tmp_path, labelled(12), shape="labelled")) == []


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("write to zoe.maier+x@mail.bank.de now", ["email"]),
        ("write to a@example.com or b@host.test", []),
        ("IBAN DE89 3704 0044 0532 0130 00, thanks", ["iban"]),
        ("IBAN GB82WEST12345698765432", ["iban"]),
        ("IBAN DE89 3704 0044 0532 0130 01", []),
        ("card 4111 1111 1111 1111 exp", ["card"]),
        ("card 4111-1111-1111-1112", []),
        ("id 1234567890123456, amount 4111111111111.11", []),
        ("call +49 30 901820 or 0044 20 7946 0958", ["phone", "phone"]),
        ("pay 4810.50 EUR on 2026-01-02 for order 100200300", []),
    ],
)
def test_personal_data_are_told_from_other_numbers(text: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in found(text)] == kinds


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("email", "zoe.maier@mail.bank.de", "z…@….de"),
        ("iban", "DE89 3704 0044 0532 0130 00", "DE…00"),
        ("card", "4111 1111 1111 1111", "…1111"),
        ("phone", "+49 30 901820", "+49…20"),
    ],
)
def test_personal_data_are_masked(kind: str, value: str, shown: str) -> None:
    assert masked(kind, value) == shown


def test_personal_data_are_listed_by_line_and_never_shown(tmp_path: Path) -> None:
    rows = [*ROWS, row(24, prompt="Pay DE89 3704 0044 0532 0130 00 for zoe@bank.de")]
    report = audited(tmp_path, rows)
    places = {one.what.split(" such as ")[1]: one.places for one in report.findings}
    assert places == {"DE…00": ("train.jsonl:25 (user)",), "z…@….de": ("train.jsonl:25 (user)",)}
    assert report.figures["personal"] == {"email": 1, "iban": 1, "card": 0, "phone": 0}
    assert b"3704" not in report.canonical()
    assert b"zoe" not in report.canonical()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Please send this to the bank and wait for an answer", "en"),
        ("Bitte überweisen Sie das Geld auf mein Konto, und nicht zu spät", "de"),
        ("Je voudrais payer cette facture pour le fournisseur, et vous ?", "fr"),
        ("请把钱转到银行", "zh"),
        ("Пожалуйста, переведите деньги", "ru"),
        ('{"explanation":"Das ist nicht zu spät und wir zahlen"}', "de"),
        ("Transfer 840.50 EUR Norvik", "?"),
    ],
)
def test_languages(text: str, name: str) -> None:
    assert language(text) == name


def test_an_answer_in_another_language(tmp_path: Path) -> None:
    english = [
        {
            "prompt": f"Please tell me what the bill is for {name}",
            "completion": f"It is {number} for the {name}",
        }
        for number, name in enumerate(NAMES)
    ]
    rows = [*english, {"prompt": "What is the bill for me", "completion": "Das ist nicht auf der Liste"}]
    (finding,) = audited(tmp_path, rows, near=False).findings
    assert (finding.check, finding.places) == ("languages", ("train.jsonl:9",))
    translator = [{**one, "completion": "Das ist nicht auf der Liste"} for one in english]
    assert [
        one for one in audited(tmp_path, translator, near=False).findings if one.check == "languages"
    ] == []


def test_near_duplicates_are_those_that_comparing_all_would_find() -> None:
    import itertools
    from random import Random

    random = Random(5)
    words = [f"w{number}" for number in range(30)]
    texts = []
    for _ in range(60):
        text = random.choices(words, k=40)
        texts.append(" ".join(text))
        for _ in range(3):
            changed = list(text)
            for _ in range(random.randint(0, 4)):
                changed[random.randrange(40)] = random.choice(words)
            texts.append(" ".join(changed))
    sets = [pieces(text) for text in texts]
    alike = {
        later
        for earlier, later in itertools.combinations(range(len(texts)), 2)
        if likeness(sets[earlier], sets[later]) >= 0.8
    }
    reported = within(texts)
    assert all(likeness(sets[later], sets[earlier]) == found for later, earlier, found in reported)
    assert {later for later, _, _ in reported} == alike
    assert 60 < len(alike) < 180
