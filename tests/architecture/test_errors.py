"""Every error has a code of its own, and the reference page lists it."""

import importlib
from pathlib import Path

from registry.errors import TenonError
from server.reference import errors_page, recipes_page, settings_page

ROOT = Path(__file__).parents[2]


def _leaves(root: type[TenonError]) -> list[type[TenonError]]:
    return [leaf for child in root.__subclasses__() for leaf in (child, *_leaves(child))]


def _all() -> list[type[TenonError]]:
    for module in (
        "router.errors",
        "trainer.errors",
        "server.errors",
        "server.engines.errors",
        "server.demo.errors",
        "server.mixup.errors",
    ):
        importlib.import_module(module)
    return [leaf for leaf in _leaves(TenonError) if not leaf.__module__.startswith("tests")]


def test_codes_are_unique_and_spelled_alike() -> None:
    codes = [leaf.code for leaf in _all() if "code" in vars(leaf)]  # groups of errors inherit one
    assert len(codes) == len(set(codes)), sorted(code for code in codes if codes.count(code) > 1)
    assert all(code.replace("_", "").isalnum() and code == code.lower() for code in codes)


def test_the_reference_pages_are_up_to_date() -> None:
    assert (ROOT / "docs/reference/errors.md").read_text() == errors_page(), "run: make docs"
    assert (ROOT / "docs/reference/recipes.md").read_text() == recipes_page(), "run: make docs"
    assert (ROOT / "docs/reference/settings.md").read_text() == settings_page(), "run: make docs"
