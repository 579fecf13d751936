"""One Helm for the session; the script installs it once and is quick afterwards."""

import subprocess
from pathlib import Path

import pytest

from tests.chart.charts import CI_VALUES, ROOT, Chart, Release


@pytest.fixture(scope="session")
def chart() -> Chart:
    done = subprocess.run(
        [ROOT / "scripts" / "get-helm"], capture_output=True, text=True, check=False, timeout=110
    )
    if done.returncode:  # never a skip: without Helm nothing about the chart is known
        pytest.fail(f"scripts/get-helm: {done.stderr}", pytrace=False)
    return Chart(Path(done.stdout.strip()))


@pytest.fixture(params=CI_VALUES)
def release(request: pytest.FixtureRequest, chart: Chart) -> Release:
    """Every test that asks for it runs on each of the chart's ci files."""
    return chart.render(request.param)


@pytest.fixture
def gpu(chart: Chart) -> Release:
    return chart.render("gpu")
