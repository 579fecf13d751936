"""The Dockerfile and the chart mean the same images. Building them needs a daemon and is not done here."""

import re
import tomllib

import yaml

from tests.chart.charts import CHART, ROOT, Release

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def stage(name: str) -> str:
    """The text of a build stage."""
    (found,) = re.findall(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.DOTALL | re.MULTILINE)
    return str(found)


def defaults() -> dict[str, str]:
    return dict(re.findall(r"^ARG (\w+)=(\S+)$", DOCKERFILE, re.MULTILINE))


def test_bases_are_pinned() -> None:
    used = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(used) == {"${PYTHON_IMAGE}", "${VLLM_IMAGE}"}
    for image in defaults().values():
        assert re.search(r":v?\d+\.\d+\.\d+", image), image


def test_the_engine_is_the_vllm_that_the_project_names() -> None:
    (pinned,) = PROJECT["project"]["optional-dependencies"]["vllm"]
    assert defaults()["VLLM_IMAGE"] == "vllm/vllm-openai:v" + pinned.removeprefix("vllm==")


def test_the_trainer_has_the_training_libraries_of_the_lock() -> None:
    (extras,) = re.findall(r"\"\$wheel\[([a-z,]+)\]\"", stage("trainer"))
    assert set(extras.split(",")) == {"train", "qlora"}
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()
    assert "--constraint /locked.txt" in stage("trainer")


def test_python_is_one_the_project_supports() -> None:
    (minor,) = re.findall(r"python:3\.(\d+)\.", defaults()["PYTHON_IMAGE"])
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert int(minor) >= 11


def test_the_wheel_is_made_of_the_packages() -> None:
    copied = re.findall(r"^COPY (\w+) \1$", stage("wheel"), re.MULTILINE)
    assert sorted(copied) == sorted(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == {*copied, "pyproject.toml", "README.md", "LICENSE", "requirements/demo.txt"}


def test_images_run_as_the_user_of_the_chart(release: Release) -> None:
    for name in ("tenon", "engine", "trainer"):
        assert re.findall(r"^USER (\S+)$", stage(name), re.MULTILINE)[-1] == "10001:10001"
        # a name for the number: torch asks for the user's name
        assert "useradd --uid 10001 --gid 10001" in stage(name)
    for pod in release.pods.values():
        context = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (10001, 10001, 10001)


def test_home_is_on_the_scratch_volume(release: Release) -> None:
    for name in ("tenon", "engine", "trainer"):
        assert "HOME=/tmp " in stage(name)
    for component in ("control", "router", "engine"):
        assert {"name": "scratch", "mountPath": "/tmp"} in release.container(component)["volumeMounts"]


def test_images_are_exposed_where_the_chart_listens(release: Release) -> None:
    for name, components in {"tenon": ("router", "control"), "engine": ("engine",)}.items():
        (exposed,) = re.findall(r"^EXPOSE (.+)$", stage(name), re.MULTILINE)
        ports = [
            port["containerPort"]
            for component in components
            for port in release.container(component)["ports"]
        ]
        assert exposed.split() == [str(port) for port in ports]


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == PROJECT["project"]["version"]
    assert PROJECT["project"]["scripts"]["tenon"]  # what the chart's commands start
