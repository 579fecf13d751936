"""The rendered objects: accepted by Kubernetes, free of secrets, and upgradable."""

import re
from typing import Any

import kubernetes_validate
import pytest

from tests.chart.charts import CI_VALUES, Chart, Document, Release, labels_of

WITHOUT_SCHEMA = {"PrometheusRule", "ServiceMonitor"}
"""Custom resources; test_monitoring checks what they refer to."""


@pytest.mark.parametrize("values", CI_VALUES)
def test_lint_has_nothing_to_say(chart: Chart, values: str) -> None:
    said = chart.lint(values)
    assert "0 chart(s) failed" in said
    assert "WARNING" not in said


@pytest.mark.parametrize(
    "kube", ["1.30.0", "1.32.0", "1.37.0"]
)  # the oldest supported, the usual, the newest known
def test_kubernetes_knows_every_field(chart: Chart, kube: str) -> None:
    seen: set[str] = set()
    for values in CI_VALUES if kube == "1.32.0" else ["gpu"]:
        for document in chart.render(values, kube=kube).documents:
            seen.add(document["kind"])
            if document["kind"] not in WITHOUT_SCHEMA:
                kubernetes_validate.validate(document, kube, strict=True)
    assert seen >= WITHOUT_SCHEMA | {
        "ConfigMap", "Deployment", "Ingress", "NetworkPolicy", "PersistentVolumeClaim", "Pod",
        "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet",
    }  # fmt: skip


def test_an_unknown_field_would_be_noticed(gpu: Release) -> None:
    service = gpu.of("Service")[0]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            service | {"spec": service["spec"] | {"prots": []}}, "1.32.0", strict=True
        )


def test_an_older_cluster_is_refused(chart: Chart) -> None:
    with pytest.raises(Exception, match=r"incompatible with Kubernetes v1\.29"):
        chart.render("minimal", kube="1.29.0")


def test_names_are_unique_and_belong_to_the_release(release: Release) -> None:
    names = [(document["kind"], document["metadata"]["name"]) for document in release.documents]
    assert len(names) == len(set(names))
    for document in release.documents:
        assert document["metadata"]["namespace"] == "prod"
        assert labels_of(document)["app.kubernetes.io/instance"] == "tenon"


def test_two_releases_share_nothing(chart: Chart) -> None:
    def names(name: str) -> set[tuple[str, str]]:
        documents = chart.render("minimal", name=name).documents
        return {(document["kind"], document["metadata"]["name"]) for document in documents}

    assert names("one").isdisjoint(names("two"))


def test_no_secret_is_made_and_none_has_a_value(release: Release) -> None:
    assert release.of("Secret") == []
    for config in release.of("ConfigMap"):
        for name, value in config["data"].items():
            if re.search("(KEY|TOKEN|SALT|SECRET|PASSWORD)(_FILE)?$", name):
                assert value.startswith("/etc/tenon/"), name  # where the file is, not what is in it
    for _, container in release.containers():
        assert all("secretKeyRef" not in str(variable) for variable in container.get("env", []))


def immutable_parts(document: Document) -> dict[str, Any]:
    """What Kubernetes refuses to change on an installed object."""
    spec = document["spec"]
    parts = {"selector": spec["selector"]}
    for field in ("serviceName", "podManagementPolicy", "volumeClaimTemplates"):
        if field in spec:
            parts[field] = spec[field]
    return parts


def test_an_upgrade_changes_nothing_immutable(chart: Chart) -> None:
    """What an operator may turn after installation, and the chart's own version."""
    turned = chart.render(
        "minimal", "image.tag=0.2.0", "engine.image.tag=0.2.0", "router.replicas=5", "engine.replicas=3",
        "logLevel=debug", "secrets.version:=7", "engine.maxLoras=16", "monitoring.namespace=monitoring",
    )  # fmt: skip
    for before in [*chart.render("minimal").of("StatefulSet"), *chart.render("minimal").of("Deployment")]:
        after = turned.one(before["kind"], labels_of(before)["app.kubernetes.io/component"])
        assert immutable_parts(before) == immutable_parts(after)
        assert "helm.sh/chart" not in str(immutable_parts(before))
        assert "app.kubernetes.io/version" not in str(immutable_parts(before))


def test_selectors_find_the_pods_they_mean(release: Release) -> None:
    for document in release.documents:
        component = labels_of(document)["app.kubernetes.io/component"]
        selector = document.get("spec", {}).get("selector")
        if document["kind"] in {"Service", "PodDisruptionBudget", "Deployment", "StatefulSet"}:
            wanted = selector if document["kind"] == "Service" else selector["matchLabels"]
            found = [
                name
                for name, pod in release.pods.items()
                if wanted.items() <= pod["metadata"]["labels"].items()
            ]
            assert found == [component], document["metadata"]["name"]


def test_what_must_survive_survives(release: Release) -> None:
    claim = release.one("PersistentVolumeClaim", "control")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    retention = release.one("StatefulSet", "router")["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert retention == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_an_existing_claim_is_used_instead(chart: Chart) -> None:
    release = chart.render("minimal", "control.persistence.existingClaim=mine")
    assert release.of("PersistentVolumeClaim") == []
    volumes = release.pods["control"]["spec"]["volumes"]
    assert {"name": "workspace", "persistentVolumeClaim": {"claimName": "mine"}} in volumes


def test_only_the_api_is_published(gpu: Release, chart: Chart) -> None:
    (ingress,) = gpu.of("Ingress")
    (rule,) = ingress["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert rule["host"] == "adapters.example.com"
    assert (path["path"], path["pathType"]) == ("/v1", "Prefix")
    backend = path["backend"]["service"]
    (service,) = (one for one in gpu.of("Service") if one["metadata"]["name"] == backend["name"])
    assert backend["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]
    assert ingress["spec"]["tls"] == [{"hosts": ["adapters.example.com"], "secretName": "adapters-tls"}]
    assert chart.render("minimal").of("Ingress") == []


def test_monitoring_reaches_each_process_once(gpu: Release, chart: Chart) -> None:
    (monitor,) = gpu.of("ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    scraped = [
        (labels_of(service)["app.kubernetes.io/component"], port["name"])
        for service in gpu.of("Service")
        if wanted.items() <= labels_of(service).items()
        for port in service["spec"]["ports"]
        if port["name"] in [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]]
    ]
    assert sorted(scraped) == [("control", "http"), ("engine", "agent"), ("router", "http")]
    assert {endpoint["path"] for endpoint in monitor["spec"]["endpoints"]} == {"/metrics"}
    assert labels_of(monitor)["release"] == "prometheus"
    assert chart.render("minimal").of("ServiceMonitor") == []


def test_each_router_knows_the_others_by_names_that_stay(chart: Chart) -> None:
    """One name for all would leave out a pod that is away, and what it holds would be said not to be."""
    release = chart.render("minimal", "router.replicas=3")
    routers = release.one("StatefulSet", "router")
    name, service = routers["metadata"]["name"], routers["spec"]["serviceName"]
    (headless,) = [each for each in release.of("Service") if each["metadata"]["name"] == service]
    port = headless["spec"]["ports"][0]["port"]
    assert headless["spec"]["clusterIP"] == "None"
    assert release.environment("router")["TENON_PEERS"].split(",") == [
        f"http://{name}-{number}.{service}:{port}" for number in range(3)
    ]
