"""The page of figures is what was measured, and nothing else."""

import copy

from bench import performance


def test_the_page_is_what_the_results_say() -> None:
    assert performance.PAGE.read_text(encoding="utf-8") == performance.render(performance.read()), (
        "python -m bench.performance writes it"
    )


def test_another_result_is_another_page() -> None:
    results = performance.read()
    for name in results:
        changed = copy.deepcopy(results)
        _touch(changed[name])
        assert performance.render(changed) != performance.render(results), name


def _touch(result: dict[str, object]) -> None:
    """Every figure."""
    for name, value in result.items():
        if isinstance(value, dict):
            _touch(value)
        elif isinstance(value, float):
            result[name] = value * 3 + 1


def test_every_side_and_every_number_of_adapters_has_its_row() -> None:
    page = performance.render(performance.read())
    for row in (
        "| direct |",
        "| router |",
        "| litellm |",
        "| vllm_router |",
        "| added at the median,",
        "| fleet | 32 |",
        "| seconds launcher |",
    ):
        assert page.count(row) == 1, row
