"""Every pod and container: locked down, probed where the process answers, and stopped gently."""

from typing import Any

import pytest

from server import settings
from tests.chart.charts import Chart, Release

PORTS = {
    "control": {"http": settings.ControlSettings.model_fields["control_port"].default},
    "router": {"http": settings.RouterSettings.model_fields["router_port"].default},
    "engine": {
        "agent": settings.EngineSettings.model_fields["agent_port"].default,
        "vllm": settings.EngineSettings.model_fields["vllm_port"].default,
    },
}
PROBED = {"control": "http", "router": "http", "engine": "agent"}
PORT_VARIABLES = {
    "control": {"http": "TENON_CONTROL_PORT"},
    "router": {"http": "TENON_ROUTER_PORT"},
    "engine": {"agent": "TENON_AGENT_PORT", "vllm": "TENON_VLLM_PORT"},
}
SECRET_KEYS = {
    "control": {"service-token"},
    "router": {"service-token", "router-key", "salt"},
    "engine": {"service-token", "engine-key"},
}


def test_all_containers_are_here(release: Release) -> None:
    """The tests below look at each of these; a new one must be looked at on purpose."""
    optional = ["trainer"] if release.of("Job") else []  # tests/chart/test_trainer.py
    optional += ["ship"] if "ship" in str(release.pods["router"]) else []  # tests/chart/test_ship.py
    assert sorted(container["name"] for _, container in release.containers()) == sorted(
        ["control", *["engine"] * len(release.pools), "migrations", "router", "test", *optional]
    )


def test_no_container_can_gain_anything(release: Release) -> None:
    """The "restricted" pod security standard, and a read-only root file system on top of it."""
    for _, container in release.containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_no_pod_is_root_or_holds_a_token(release: Release) -> None:
    for component, pod in release.pods.items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] >= 10000
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all("hostPath" not in volume for volume in spec.get("volumes", [])), component
    for account in release.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


def test_every_component_has_its_own_account_and_no_rights(release: Release) -> None:
    accounts = {account["metadata"]["name"] for account in release.of("ServiceAccount")}
    used = [
        pod["spec"]["serviceAccountName"] for component, pod in release.pods.items() if component != "test"
    ]
    assert set(used) == accounts
    assert len(used) == len(accounts) + len(release.pools) - 1
    assert release.of("ClusterRole") == release.of("ClusterRoleBinding") == []
    if "TENON_KUBERNETES_SERVICES" not in release.environment("control"):  # tests/chart/test_pools.py
        assert release.of("Role") == release.of("RoleBinding") == []


def test_service_links_are_off(release: Release) -> None:
    """A Service named tenon-control would make Kubernetes set TENON_CONTROL_PORT=tcp://… in every pod."""
    for pod in release.pods.values():
        assert pod["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("component", PORTS)
def test_ports_are_those_of_the_process(component: str, release: Release) -> None:
    container = release.container(component)
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == PORTS[component]
    environment = release.environment(component)
    for name, variable in PORT_VARIABLES[component].items():
        assert int(environment[variable]) == PORTS[component][name]
    for service in release.of("Service"):
        if service["metadata"]["labels"]["app.kubernetes.io/component"] == component:
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= PORTS[component].keys()


@pytest.mark.parametrize("component", PROBED)
def test_probes_ask_what_the_process_answers(component: str, release: Release) -> None:
    container = release.container(component)
    asked = {
        name: (container[name]["httpGet"]["path"], container[name]["httpGet"]["port"])
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    port = PROBED[component]
    assert asked == {
        "startupProbe": ("/healthz", port),
        "readinessProbe": ("/readyz", port),
        "livenessProbe": ("/healthz", port),
    }


def test_an_engine_has_ten_minutes_to_load(release: Release) -> None:
    probe = release.container("engine")["startupProbe"]
    assert (probe["failureThreshold"], probe["periodSeconds"]) == (60, 10)


@pytest.mark.parametrize("component", PORTS)
def test_a_stopping_pod_has_time_left_after_draining(component: str, release: Release) -> None:
    drain = release.container(component)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert 0 < drain < release.pods[component]["spec"]["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("component", PORTS)
def test_each_process_gets_only_its_secrets(component: str, release: Release) -> None:
    spec = release.pods[component]["spec"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "secrets"]
    optional = {
        key
        for key, variable in {
            "metrics-token": "TENON_METRICS_TOKEN_FILE",
            "retention-key": "TENON_RETENTION_KEY_FILE",
        }.items()
        if variable in release.environment(component)
    }
    assert {item["key"] for item in volume["secret"]["items"]} == SECRET_KEYS[component] | optional
    # registry.signing refuses a key file that everybody may read
    assert volume["secret"]["defaultMode"] == 0o440
    mounted = {mount["name"]: mount["mountPath"] for mount in release.container(component)["volumeMounts"]}
    files = {
        f"{mounted[one['name']]}/{item['path']}"
        for one in spec["volumes"]
        if one["name"] in mounted  # others are the sidecar's
        for item in (one.get("secret") or one.get("configMap") or {}).get("items", ())
        if one["name"] != "hub-token"  # for the hub's library, not for Tenon
    }
    environment = release.environment(component)
    assert {
        value for name, value in environment.items() if name.startswith("TENON_") and name.endswith("_FILE")
    } == files


def test_every_mount_has_a_volume_and_every_volume_a_mount(release: Release) -> None:
    for component, pod in release.pods.items():
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", [])}
        owners = [owner for owner in release.of("StatefulSet") if owner["spec"]["template"] is pod]
        for owner in owners:
            volumes |= {claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])}
        mounts = {
            mount["name"]
            for name, container in release.containers()
            if name == component
            for mount in container.get("volumeMounts", [])
        }
        assert mounts == volumes, component


def writable(container: dict[str, Any]) -> list[str]:
    return [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]


@pytest.mark.parametrize(
    ("component", "variable"),
    [("control", "TENON_WORKSPACE"), ("router", "TENON_RECORDS_DIR"), ("engine", "TENON_CACHE_DIR")],
)
def test_folders_that_are_written_lie_below_a_writable_mount(
    component: str, variable: str, release: Release
) -> None:
    """Below, not at it: the root of a fresh volume may hold lost+found, and a workspace starts empty."""
    folder = release.environment(component)[variable]
    assert any(folder.startswith(mount + "/") for mount in writable(release.container(component)))
    assert "/tmp" in writable(release.container(component))


def test_a_router_keeps_its_records(release: Release) -> None:
    owner = release.one("StatefulSet", "router")
    (claim,) = owner["spec"]["volumeClaimTemplates"]
    (mount,) = [
        one for one in release.container("router")["volumeMounts"] if one["name"] == claim["metadata"]["name"]
    ]
    assert release.environment("router")["TENON_RECORDS_DIR"].startswith(mount["mountPath"])


def test_sets_are_named_by_their_service(release: Release) -> None:
    headless = {
        one["metadata"]["name"] for one in release.of("Service") if one["spec"].get("clusterIP") == "None"
    }
    assert {owner["spec"]["serviceName"] for owner in release.of("StatefulSet")} == headless


def test_shared_memory_is_memory(release: Release) -> None:
    spec = release.pods["engine"]["spec"]
    (mount,) = [one for one in release.container("engine")["volumeMounts"] if one["mountPath"] == "/dev/shm"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == mount["name"]]
    assert volume["emptyDir"]["medium"] == "Memory"
    assert volume["emptyDir"]["sizeLimit"]


def test_a_gpu_engine_asks_for_its_gpus(gpu: Release, chart: Chart) -> None:
    assert gpu.container("engine")["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert gpu.environment("engine")["TENON_TENSOR_PARALLEL_SIZE"] == "2"
    assert gpu.pods["engine"]["spec"]["runtimeClassName"] == "nvidia"
    other = chart.render("minimal", "engine.gpuResource=amd.com/gpu").container("engine")["resources"]
    assert other["limits"] == {"memory": "32Gi", "amd.com/gpu": 1}
    assert "nvidia.com/gpu" not in str(chart.render("cpu-demo").container("engine")["resources"])


def test_a_folder_is_mounted_and_a_hub_base_is_kept(gpu: Release, chart: Chart) -> None:
    folder = chart.render("cpu-demo")
    (models,) = [one for one in folder.container("engine")["volumeMounts"] if one["name"] == "models"]
    assert models == {"name": "models", "mountPath": "/models", "readOnly": True}
    assert folder.environment("engine")["TENON_BASE"].startswith("/models/")
    assert folder.environment("engine")["HF_HUB_OFFLINE"] == "1"
    assert "volumeClaimTemplates" not in folder.one("StatefulSet", "engine")["spec"]
    environment = gpu.environment("engine")
    assert "HF_HUB_OFFLINE" not in environment
    assert environment["HF_HOME"] in writable(gpu.container("engine"))
    assert environment["HF_TOKEN_PATH"] == "/etc/tenon/hub/token"
    (token,) = [one for one in gpu.pods["engine"]["spec"]["volumes"] if one["name"] == "hub-token"]
    assert token["secret"]["items"] == [{"key": "read-token", "path": "token"}]


def test_images_are_pinned(release: Release) -> None:
    for _, container in release.containers():
        name = container["image"].rpartition("/")[2]
        assert "@sha256:" in name or name.partition(":")[2] not in {"", "latest"}


def test_images_are_the_ones_meant(gpu: Release, chart: Chart) -> None:
    images = {container["name"]: container["image"] for _, container in gpu.containers()}
    assert images["engine"] == "images.example.com:5000/tenon/engine:0.1.0-vllm0.32.0"
    assert len({images[name] for name in ("control", "migrations", "router", "test")}) == 1
    assert images["control"].startswith("images.example.com:5000/tenon/tenon@sha256:")
    # the fake engine needs no vLLM image
    assert chart.render("fake-engine").container("engine")["image"] == "tenon:0.1.0"
    assert chart.render("cpu-demo").container("engine")["image"] == "tenon-engine:0.1.0"


def test_requests_and_memory_limits_everywhere(release: Release) -> None:
    for _, container in release.containers():
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("component", PORTS)
def test_pods_spread_over_zones_and_nodes(component: str, release: Release) -> None:
    pod = release.pods[component]
    constraints = pod["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in constraints] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]
    for one in constraints:
        assert one["labelSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_disruptions_take_one_pod_and_never_block_a_node(release: Release) -> None:
    budgets = {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]
        for one in release.of("PodDisruptionBudget")
    }
    assert budgets.keys() == {
        "router",
        *release.pools,
    }  # one control plane: a budget would only block its node
    for budget in budgets.values():
        assert budget["maxUnavailable"] == 1
        assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def annotations(release: Release) -> dict[str, dict[str, str]]:
    return {component: release.pods[component]["metadata"]["annotations"] for component in PORTS}


def test_a_changed_setting_restarts_who_reads_it_and_nobody_else(chart: Chart) -> None:
    before = annotations(chart.render("minimal"))
    after = annotations(chart.render("minimal", "router.idleTimeout=31"))
    changed = [name for name in PORTS if before[name]["checksum/config"] != after[name]["checksum/config"]]
    assert changed == ["router"]


def test_a_rotated_secret_restarts_everybody_when_told(chart: Chart) -> None:
    before = annotations(chart.render("minimal"))
    after = annotations(chart.render("minimal", "secrets.version:=2"))
    assert all(before[name] != after[name] for name in PORTS)
    assert before == annotations(chart.render("minimal", "secrets.version="))
