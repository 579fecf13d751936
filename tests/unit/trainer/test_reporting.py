"""The pages of a run and of a sweep: everything is on them, nothing on them runs, nothing is fetched."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.support.finished_run import ALARMED, DRIFT, metrics, run_in
from trainer.errors import SweepInvalid
from trainer.reporting.page import write_report
from trainer.reporting.sweep import rows, sweep_name, write_sweep
from trainer.sweep import Swept, Variant, best, check_metric, variants

ATTACK = '</pre><script>alert(1)</script><img src=x onerror="alert(2)">'


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def fetched(self) -> list[str]:
        """Addresses that are not in the page itself."""
        links = [
            value for name, value in self.attributes if name.rpartition(":")[2] in ("src", "href", "srcset")
        ]
        return [link for link in links if not link.startswith("#")]


def test_a_report_shows_every_metric_with_its_interval_and_every_curve(tmp_path: Path) -> None:
    page = Page(write_report(run_in(tmp_path / "run")).read_text())
    for name in metrics(0.5):
        assert name in page.text
    assert "0.900 ± 0.060" in page.text
    assert "0.400 ± 0.098" in page.text
    assert "31.500 ± 2.450" in page.text
    assert page.tags.count("svg") == 3  # bars, loss, gradient; the learning rate never changed
    assert "question after" in page.text
    assert "30.2 s" in page.text
    assert f"step {ALARMED}: {DRIFT}" in page.text
    assert "length_drift" not in page.text  # a sentence, not how it is stored


def test_what_a_model_says_cannot_act_on_the_page(tmp_path: Path) -> None:
    page = Page(write_report(run_in(tmp_path / "run", answer=ATTACK)).read_text())
    assert ATTACK in page.text  # shown, as text
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_a_page_opens_without_a_network(tmp_path: Path) -> None:
    text = write_report(run_in(tmp_path / "run")).read_text()
    page = Page(text)
    assert page.fetched == []
    assert not {"link", "script", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "@import" not in text
    assert "url(http" not in text


def test_the_same_run_writes_the_same_page(tmp_path: Path) -> None:
    run = run_in(tmp_path / "run")
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


# Sweeps


def swept(folder: Path, *policies: float) -> list[Swept]:
    return [
        Swept(
            Variant((f"lora.rank={rank}",)), run_in(folder / str(rank), policy=policy, rank=rank), rank * 100
        )
        for rank, policy in zip((4, 8, 16), policies, strict=True)
    ]


def test_several_keys_make_a_grid_and_lists_stay_whole() -> None:
    assert [str(one) for one in variants(["lora.rank=4, 8", "lora.targets=[q_proj,v_proj],mlp"])] == [
        "lora.rank=4 lora.targets=[q_proj,v_proj]", "lora.rank=4 lora.targets=mlp",
        "lora.rank=8 lora.targets=[q_proj,v_proj]", "lora.rank=8 lora.targets=mlp",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["lora.rank"], "names no values"),
        (["lora.rank="], "names no values"),
        (["=4,8"], "names no values"),
        (["lora.rank=4,,8"], "names no values"),
        (["lora.rank=4,8,4"], "names a value twice"),
        (["lora.rank=4", "lora.rank=8"], "may be swept once"),
        (["seed=" + ",".join(map(str, range(13))), "lora.rank=1,2,3,4,5"], "65 variants are too many"),
    ],
)
def test_a_sweep_that_says_too_little_or_too_much_is_refused(lines: list[str], words: str) -> None:
    with pytest.raises(SweepInvalid, match=words):
        variants(lines)


def test_the_best_is_named_with_those_it_cannot_be_told_from(tmp_path: Path) -> None:
    all_of_them = swept(tmp_path, 0.60, 0.95, 0.93)
    winner, close = best(all_of_them, "policy")
    assert str(winner.variant) == "lora.rank=8"
    assert [str(one.variant) for one in close] == ["lora.rank=16"]
    with pytest.raises(SweepInvalid, match="'exact' was not measured"):
        best(all_of_them, "exact")
    with pytest.raises(SweepInvalid, match="no variant is best by words"):
        check_metric("words")


def test_a_sweep_is_compared_on_one_page_and_in_json(tmp_path: Path) -> None:
    all_of_them = swept(tmp_path, 0.60, 0.95, 0.93)
    text = write_sweep(all_of_them, tmp_path / "sweep", chosen=all_of_them[1]).read_text()
    page = Page(text)
    for words in ("lora.rank=4", "lora.rank=16", "0.950 ± 0.044", "0.400 ± 0.098", "1,600", "30.2"):
        assert words in page.text
    assert page.tags.count("svg") == 2  # bars, and one picture with three losses
    assert ("class", "chosen") in page.attributes
    assert page.fetched == []
    said: dict[str, Any] = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert said["chosen"] == ["lora.rank=8"]
    assert [one["metrics"]["policy"]["value"] for one in said["variants"]] == [0.60, 0.95, 0.93]
    assert [row[0] for row in rows(all_of_them)] == ["base", "lora.rank=4", "lora.rank=8", "lora.rank=16"]
    assert sweep_name(all_of_them) == sweep_name(all_of_them)
    assert sweep_name(all_of_them) != sweep_name(all_of_them[:2])
