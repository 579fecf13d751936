"""The chart, rendered by a real Helm, and the few questions that the tests ask of what comes out."""

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "tenon"
CI_VALUES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))

Document = dict[str, Any]


class ValuesRefused(Exception):
    """Helm would not render; the text is what a person sees."""


@dataclass(frozen=True, eq=False)
class Release:
    documents: tuple[Document, ...]

    def of(self, kind: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str, component: str) -> Document:
        """The only object of this kind of a component."""
        (found,) = (
            one for one in self.of(kind) if labels_of(one)["app.kubernetes.io/component"] == component
        )
        return found

    @cached_property
    def pods(self) -> dict[str, Document]:
        """Pod templates (and the bare test pod) by component."""
        owners = [*self.of("Deployment"), *self.of("StatefulSet"), *self.of("Job")]
        found = {
            labels_of(owner)["app.kubernetes.io/component"]: owner["spec"]["template"] for owner in owners
        }
        return found | {labels_of(pod)["app.kubernetes.io/component"]: pod for pod in self.of("Pod")}

    def containers(self) -> Iterator[tuple[str, Document]]:
        """(component, container), init containers included."""
        for component, pod in self.pods.items():
            for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
                yield component, container

    def container(self, name: str) -> Document:
        """Of `engine` the one in the pool that has no name: all pools' are called so."""
        (found,) = (
            container
            for component, container in self.containers()
            if container["name"] == name and not component.startswith("engine-")
        )
        return found

    @property
    def pools(self) -> list[str]:
        """Components of engines."""
        return sorted(name for name in self.pods if name == "engine" or name.startswith("engine-"))

    def environment(self, name: str) -> dict[str, str]:
        """What the container's process would read, as the kubelet resolves it for the first pod of a set."""
        container = self.container(name)
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if "secretRef" in source:
                continue  # what is in it is the cluster's affair
            (data,) = (
                config["data"]
                for config in self.of("ConfigMap")
                if config["metadata"]["name"] == source["configMapRef"]["name"]
            )
            found |= data
        for variable in container.get("env", []):
            if "value" in variable:
                value = variable["value"]
                for known, known_value in found.items():  # only what stands above it, as the kubelet does
                    value = value.replace(f"$({known})", known_value)
            else:
                value = self._field(name, variable["valueFrom"]["fieldRef"]["fieldPath"])
            found[variable["name"]] = value
        return found

    def _field(self, component: str, path: str) -> str:
        owner = self.one("StatefulSet", component)
        first: dict[str, str] = {
            "metadata.name": f"{owner['metadata']['name']}-0",
            "status.podIP": "10.1.2.3",
        }
        return first[path]


def labels_of(document: Mapping[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = document["metadata"]["labels"]
    return labels


@dataclass(frozen=True)
class Chart:
    """Helm is run once for each set of values in a session."""

    helm: Path

    def lint(self, values: str) -> str:
        return self._run("lint", str(CHART), "--strict", "--values", str(values_file(values)))

    def render(self, values: str, *overrides: str, name: str = "tenon", kube: str = "1.32.0") -> Release:
        """``values`` names a ci file; an override is ``key=value`` or, as text, ``key:=value``."""
        return _render(self, values, overrides, name, kube)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.helm, *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise ValuesRefused(done.stdout + done.stderr)
        return done.stdout


def values_file(values: str) -> Path:
    return CHART / "ci" / f"{values}-values.yaml"


@cache
def _render(chart: Chart, values: str, overrides: tuple[str, ...], name: str, kube: str) -> Release:
    sets: list[str] = []
    for override in overrides:
        flag = "--set-string" if ":=" in override else "--set"
        sets += [flag, override.replace(":=", "=", 1)]
    text = chart._run(
        "template", name, str(CHART), "--namespace", "prod", "--kube-version", kube,
        "--values", str(values_file(values)), *sets,
    )  # fmt: skip
    return Release(tuple(document for document in yaml.safe_load_all(text) if document))
