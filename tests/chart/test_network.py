"""Who may reach whom: the rendered NetworkPolicies, evaluated as Kubernetes defines them.

Both ends must agree: the caller's egress and the target's ingress. A pod that no policy selects is open.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.chart.charts import Chart, Release

ROUTER, CONTROL, AGENT, VLLM = 8400, 8401, 8410, 8411
OURS = ("control", "router", "engine")


@dataclass(frozen=True)
class Pod:
    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = "10.0.0.9"


def ours(release: Release, component: str) -> Pod:
    return Pod("prod", release.pods[component]["metadata"]["labels"])


PROMETHEUS = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"})
BYSTANDER_IN_MONITORING = Pod("monitoring", {"app": "grafana"})
FALSE_PROMETHEUS = Pod("prod", {"app.kubernetes.io/name": "prometheus"})
INGRESS = Pod("ingress", {"app": "ingress"})
STRANGER = Pod("prod", {"app": "stranger"})
FALSE_ROUTER = Pod(
    "elsewhere",
    {
        "app.kubernetes.io/name": "tenon",
        "app.kubernetes.io/instance": "tenon",
        "app.kubernetes.io/component": "router",
    },
)
DNS = Pod("kube-system", {"k8s-app": "kube-dns"})
INTERNET = Pod("", address="151.101.1.1")
METADATA = Pod("", address="169.254.169.254")
PRIVATE = Pod("", address="192.168.3.4")
OUTSIDERS = {
    "prometheus": PROMETHEUS, "bystander in monitoring": BYSTANDER_IN_MONITORING, "ingress": INGRESS,
    "stranger": STRANGER, "false router": FALSE_ROUTER, "false prometheus": FALSE_PROMETHEUS,
}  # fmt: skip


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}, "matchExpressions would need to be evaluated here"
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def peer_is(peer: Mapping[str, Any], pod: Pod, home: str) -> bool:
    if "ipBlock" in peer:
        address = ipaddress.ip_address(pod.address)
        block = peer["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(part) for part in block.get("except", []))
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": pod.namespace}):
            return False
    elif pod.namespace != home:
        return False
    return selects(peer.get("podSelector", {}), pod.labels)


def passes(release: Release, pod: Pod, other: Pod, *, direction: str, port: int, protocol: str) -> bool:
    policies = [
        policy["spec"]
        for policy in release.of("NetworkPolicy")
        if policy["metadata"]["namespace"] == pod.namespace
        and selects(policy["spec"]["podSelector"], pod.labels)
        and direction.capitalize() in policy["spec"]["policyTypes"]
    ]
    if not policies:
        return True
    side = "from" if direction == "ingress" else "to"
    return any(
        (not rule.get(side) or any(peer_is(peer, other, "prod") for peer in rule[side]))
        and (not rule.get("ports") or {"protocol": protocol, "port": port} in rule["ports"])
        for policy in policies
        for rule in policy.get(direction) or []
    )


def may(release: Release, caller: Pod, target: Pod, port: int, protocol: str = "TCP") -> bool:
    return passes(release, caller, target, direction="egress", port=port, protocol=protocol) and passes(
        release, target, caller, direction="ingress", port=port, protocol=protocol
    )


def allowed(release: Release) -> set[tuple[str, str, int]]:
    """(caller, our component, port) of every connection that is let through."""
    callers = {name: ours(release, name) for name in (*OURS, "test")} | OUTSIDERS
    return {
        (caller, target, port)
        for caller, pod in callers.items()
        for target in OURS
        if caller != target
        for port in (ROUTER, CONTROL, AGENT, VLLM, 22, 443)
        if may(release, pod, ours(release, target), port)
    }


def test_who_reaches_whom_by_default(chart: Chart) -> None:
    everybody_reaches_routers = {(caller, "router", ROUTER) for caller in ("test", *OUTSIDERS)}
    assert allowed(chart.render("minimal")) == everybody_reaches_routers | {
        ("router", "engine", VLLM),
        ("router", "control", CONTROL),
        ("engine", "control", CONTROL),
    }


def test_who_reaches_whom_when_everything_is_named(gpu: Release) -> None:
    assert allowed(gpu) == {
        ("router", "engine", VLLM),
        ("router", "control", CONTROL),
        ("engine", "control", CONTROL),
        ("ingress", "router", ROUTER),
        ("test", "router", ROUTER),
        ("prometheus", "router", ROUTER),
        ("prometheus", "control", CONTROL),
        ("prometheus", "engine", AGENT),
    }


def test_each_component_is_closed_both_ways(release: Release) -> None:
    """A policy that lists no direction leaves it open, whatever its rules say."""
    for component in OURS:
        assert set(release.one("NetworkPolicy", component)["spec"]["policyTypes"]) == {"Ingress", "Egress"}


@pytest.mark.parametrize("component", ["router", "engine"])
def test_names_can_be_resolved(component: str, release: Release) -> None:
    for protocol in ("UDP", "TCP"):
        assert may(release, ours(release, component), DNS, 53, protocol)
    assert not may(release, ours(release, component), Pod("kube-system", {"app": "other"}), 53, "UDP")


def test_nothing_leaves_but_for_the_hub(gpu: Release, chart: Chart) -> None:
    assert may(gpu, ours(gpu, "engine"), INTERNET, 443)
    assert not may(gpu, ours(gpu, "engine"), INTERNET, 80)
    assert not may(gpu, ours(gpu, "engine"), METADATA, 443)
    assert not may(gpu, ours(gpu, "engine"), PRIVATE, 443)
    folder = chart.render("cpu-demo")
    assert not may(folder, ours(folder, "engine"), INTERNET, 443)
    for component in ("control", "router"):
        assert not may(gpu, ours(gpu, component), INTERNET, 443)


def test_another_release_is_a_stranger(chart: Chart) -> None:
    one, two = chart.render("minimal", name="one"), chart.render("minimal", name="two")
    assert not may(two, ours(one, "router"), ours(two, "engine"), VLLM)
    assert not may(two, ours(one, "engine"), ours(two, "control"), CONTROL)


def test_elsewhere_is_configurable(chart: Chart) -> None:
    release = chart.render(
        "gpu", "networkPolicy.dns.namespace=dns", "networkPolicy.dns.podLabels.k8s-app=coredns",
        "networkPolicy.hub[0].ipBlock.cidr=10.9.0.0/16", "monitoring.namespace=watch",
    )  # fmt: skip
    engine = ours(release, "engine")
    assert may(release, engine, Pod("dns", {"k8s-app": "coredns"}), 53, "UDP")
    assert not may(release, engine, DNS, 53, "UDP")
    assert may(release, engine, Pod("", address="10.9.1.1"), 443)
    assert not may(release, PROMETHEUS, engine, AGENT)
    assert may(release, Pod("watch", PROMETHEUS.labels), engine, AGENT)
