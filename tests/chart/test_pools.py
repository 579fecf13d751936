"""Pools of engines: what each takes from `engine`, what no pool shares, and who is told that they exist."""

from pathlib import Path

import pytest
import yaml

from server import settings
from server.engines.discovery import slices
from server.engines.discovery.static import parse
from tests.chart.charts import CHART, Chart, Document, Release, labels_of
from tests.chart.schema import schema
from tests.chart.test_network import AGENT, DNS, INTERNET, STRANGER, VLLM, Pod, may, ours, selects
from tests.chart.test_settings import read

POOLS = ["engine", "engine-bank", "engine-large", "engine-small-base"]
API_SERVER = Pod("", address="10.0.0.1")
STORE = Pod("", address="10.20.0.7")


@pytest.fixture
def pools(chart: Chart) -> Release:
    return chart.render("pools")


def container(release: Release, component: str) -> Document:
    (found,) = release.pods[component]["spec"]["containers"]
    whole: Document = found
    return whole


def config(release: Release, component: str) -> dict[str, str]:
    named = container(release, component)["envFrom"][0]["configMapRef"]["name"]
    (found,) = [one["data"] for one in release.of("ConfigMap") if one["metadata"]["name"] == named]
    data: dict[str, str] = found
    return data


def listed(release: Release) -> Document:
    (found,) = [one for one in release.of("ConfigMap") if "engines.yaml" in one["data"]]
    whole: Document = yaml.safe_load(found["data"]["engines.yaml"])
    return whole


def test_a_pool_may_say_all_that_engine_says_and_who_it_is() -> None:
    pool = schema()["properties"]["engines"]["properties"]["pools"]["items"]
    assert pool["additionalProperties"] is False
    assert pool["properties"].keys() - schema()["properties"]["engine"]["properties"].keys() == {
        "name", "tenant", "level",
    }  # fmt: skip
    for name in schema()["properties"]["engine"]["properties"]:
        assert pool["properties"][name] == {"$ref": f"#/properties/engine/properties/{name}"}


def test_each_pool_is_a_set_with_all_that_belongs_to_one(pools: Release) -> None:
    assert pools.pools == POOLS
    for component in POOLS:
        owner = pools.one("StatefulSet", component)
        assert owner["metadata"]["name"] == f"tenon-{component}"
        assert owner["spec"]["serviceName"] == pools.one("Service", component)["metadata"]["name"]
        assert pools.one("Service", component)["spec"]["clusterIP"] == "None"
        for kind in ("ConfigMap", "PodDisruptionBudget", "NetworkPolicy"):
            assert pools.one(kind, component)["metadata"]["name"] == f"tenon-{component}"
    assert {name: pools.one("StatefulSet", name)["spec"]["replicas"] for name in POOLS} == {
        "engine": 2, "engine-bank": 1, "engine-large": 2, "engine-small-base": 1,
    }  # fmt: skip


def test_no_selector_of_a_pool_finds_another_ones_pods(pools: Release) -> None:
    """Two budgets over one pod would keep every eviction away from it."""
    for document in pools.documents:
        selector = document.get("spec", {}).get("selector") or document.get("spec", {}).get("podSelector")
        if document["kind"] not in {"Service", "PodDisruptionBudget", "StatefulSet", "NetworkPolicy"}:
            continue
        wanted = selector if document["kind"] == "Service" else {"matchLabels": selector["matchLabels"]}
        labels = wanted if document["kind"] == "Service" else wanted["matchLabels"]
        found = [
            name
            for name, pod in pools.pods.items()
            if selects({"matchLabels": labels}, pod["metadata"]["labels"])
        ]
        assert found == [labels_of(document)["app.kubernetes.io/component"]]


def test_a_pool_takes_from_engine_what_it_does_not_say(pools: Release) -> None:
    shared = config(pools, "engine")
    large = config(pools, "engine-large")
    differing = {name for name in shared if shared[name] != large.get(name)}
    assert differing == {"TENON_MAX_LORA_RANK", "TENON_MAX_LORAS"}
    assert (large["TENON_MAX_LORA_RANK"], large["TENON_MAX_LORAS"]) == ("256", "4")
    assert config(pools, "engine-bank") == shared | {"TENON_POOL_SIZE": "1"}
    assert shared["TENON_POOL_SIZE"] == large["TENON_POOL_SIZE"] == "2"
    spec = pools.pods["engine-large"]["spec"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H200"}  # not both nodes' labels
    assert pools.pods["engine-bank"]["spec"]["tolerations"][0]["key"] == "bank-a"
    assert "tolerations" not in pools.pods["engine"]["spec"]
    assert container(pools, "engine-large")["resources"] == container(pools, "engine")["resources"]
    assert container(pools, "engine-large")["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_what_belongs_to_one_base_is_never_taken_over_to_another(pools: Release) -> None:
    other = config(pools, "engine-small-base")
    assert (other["TENON_BASE"], other["TENON_BASE_NAME"]) == ("/models/demo-base", "demo")
    assert not {"TENON_BASE_REVISION", "TENON_TOOL_CALL_PARSER", "TENON_MAX_MODEL_LEN"} & other.keys()
    assert {"TENON_BASE_REVISION", "TENON_TOOL_CALL_PARSER", "TENON_MAX_MODEL_LEN"} <= config(
        pools, "engine"
    ).keys()
    volumes = {one["name"] for one in pools.pods["engine-small-base"]["spec"]["volumes"]}
    assert "models" in volumes
    assert "volumeClaimTemplates" not in pools.one("StatefulSet", "engine-small-base")["spec"]
    limits = container(pools, "engine-small-base")["resources"]
    assert limits == {"requests": {"cpu": "2", "memory": "6Gi"}, "limits": {"memory": "32Gi"}}


def test_false_and_zero_and_nothing_are_values_too(chart: Chart) -> None:
    release = chart.render(
        "gpu", "engine.allowUncertified=true", "engine.replicas=0", "engines.pools[0].name=a",
        "engines.pools[0].allowUncertified=false", "engines.pools[0].runtimeClassName=",
        "engines.pools[0].replicas=1",
    )  # fmt: skip
    assert config(release, "engine")["TENON_ALLOW_UNCERTIFIED_ENGINE"] == "true"
    assert config(release, "engine-a")["TENON_ALLOW_UNCERTIFIED_ENGINE"] == "false"
    assert "runtimeClassName" not in release.pods["engine-a"]["spec"]
    assert release.pods["engine"]["spec"]["runtimeClassName"] == "nvidia"
    assert release.one("StatefulSet", "engine")["spec"]["replicas"] == 0
    assert [one["name"] for one in listed(release)["engines"]] == ["adapters-engine-a-0"]


@pytest.mark.parametrize("component", POOLS)
def test_every_pool_is_probed_stopped_and_locked_down_like_the_first(component: str, pools: Release) -> None:
    first, this = container(pools, "engine"), container(pools, component)
    same = {
        "command", "securityContext", "ports", "env", "lifecycle", "startupProbe", "readinessProbe",
        "livenessProbe",
    }  # fmt: skip
    assert {name: this[name] for name in same} == {name: first[name] for name in same}
    spec, whole = pools.pods["engine"]["spec"], pools.pods[component]["spec"]
    for name in ("automountServiceAccountToken", "serviceAccountName", "securityContext"):
        assert whole[name] == spec[name]
    stopping = this["lifecycle"]["preStop"]["sleep"]["seconds"] + float(
        config(pools, component)["TENON_ENGINE_DRAIN"]
    )
    assert whole["terminationGracePeriodSeconds"] > stopping + 10


@pytest.mark.parametrize("component", POOLS)
def test_the_processes_of_every_pool_accept_their_values(
    component: str, pools: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config(pools, component) | {"TENON_ENGINE": f"tenon-{component}-0"}
    engine = read("engine", given, monkeypatch)
    assert isinstance(engine, settings.EngineSettings)
    assert not engine.fake_engine


def test_a_pools_setting_restarts_that_pool_alone(chart: Chart) -> None:
    def sums(*overrides: str) -> dict[str, str]:
        release = chart.render("pools", *overrides)
        return {
            name: release.pods[name]["metadata"]["annotations"]["checksum/config"]
            for name in (*POOLS, "control", "router")
        }

    before, after = sums(), sums("engines.pools[0].maxLoras=5")
    assert [name for name in before if before[name] != after[name]] == ["engine-large"]


def test_the_control_plane_is_told_whom_to_expect(pools: Release) -> None:
    found = parse(yaml.safe_dump(listed(pools)).encode())
    assert {name: (one.base, one.tenant) for name, one in found.items()} == {
        "tenon-engine-0": ("qwen3-8b", None),
        "tenon-engine-1": ("qwen3-8b", None),
        "tenon-engine-large-0": ("qwen3-8b", None),
        "tenon-engine-large-1": ("qwen3-8b", None),
        "tenon-engine-small-base-0": ("demo", None),
        "tenon-engine-bank-0": ("qwen3-8b", "bank_a"),
    }
    # The names are those that the pods give themselves.
    names = [
        f"{owner['metadata']['name']}-{number}"
        for owner in pools.of("StatefulSet")
        if labels_of(owner)["app.kubernetes.io/component"] in POOLS
        for number in range(owner["spec"]["replicas"])
    ]
    assert sorted(names) == sorted(found)
    file = pools.environment("control")["TENON_ENGINES_FILE"]
    (mount,) = [one for one in pools.container("control")["volumeMounts"] if one["name"] == "engines"]
    assert file == f"{mount['mountPath']}/engines.yaml"
    assert "subPath" not in mount  # such a file would never be updated


def test_the_registry_takes_what_the_largest_pool_serves(pools: Release, chart: Chart) -> None:
    assert pools.environment("control")["TENON_MAX_ADAPTER_RANK"] == "256"
    alone = chart.render("minimal", "engine.maxLoraRank=16").environment("control")
    assert alone["TENON_MAX_ADAPTER_RANK"] == "16"


def test_scaling_restarts_nobody(chart: Chart) -> None:
    """The list is read again; a restart of the control plane would be an interruption."""
    more = chart.render("minimal", "engine.replicas=4")
    before = chart.render("minimal")
    assert more.pods == before.pods
    assert len(listed(more)["engines"]) == 4


def test_the_watch_sees_endpoint_slices_of_this_namespace_and_nothing_else(pools: Release) -> None:
    (role,), (binding,) = pools.of("Role"), pools.of("RoleBinding")
    assert role["rules"] == [
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": [slices.PATH.rpartition("/")[2]],
            "verbs": ["get", "list", "watch"],
        }
    ]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert subject["name"] == pools.pods["control"]["spec"]["serviceAccountName"]
    assert subject["namespace"] == "prod"
    assert pools.of("ClusterRole") == []


def test_only_the_control_planes_own_container_holds_a_token(pools: Release, chart: Chart) -> None:
    projected = [
        (component, volume["name"])
        for component, pod in pools.pods.items()
        for volume in pod["spec"].get("volumes", [])
        if "serviceAccountToken" in str(volume)
    ]
    assert projected == [("control", "account")]
    mounting = [
        one["name"]
        for _, one in pools.containers()
        if any(mount["name"] == "account" for mount in one.get("volumeMounts", ()))
    ]
    assert mounting == ["control"]
    (volume,) = [one for one in pools.pods["control"]["spec"]["volumes"] if one["name"] == "account"]
    sources = volume["projected"]["sources"]
    assert sources[0]["serviceAccountToken"]["expirationSeconds"] <= 3600
    files = {"token", *(item["path"] for one in sources[1:] for item in next(iter(one.values()))["items"])}
    assert files == {"token", "ca.crt", "namespace"}
    assert "serviceAccountToken" not in str(chart.render("minimal").pods)


def test_the_watched_services_are_the_pools(pools: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    control = read("control", pools.environment("control"), monkeypatch)
    assert isinstance(control, settings.ControlSettings)
    services = [f"tenon-{name}" for name in POOLS]
    assert sorted((control.kubernetes_services or "").split(",")) == services
    (mount,) = [one for one in pools.container("control")["volumeMounts"] if one["name"] == "account"]
    assert str(control.kubernetes_account) == mount["mountPath"]
    for component in POOLS:
        ports = {port["name"] for port in pools.one("Service", component)["spec"]["ports"]}
        assert "vllm" in ports  # by which a slice is known to be of engines


@pytest.mark.parametrize("component", POOLS)
def test_only_routers_reach_a_pool_and_only_it_reaches_the_control_plane(
    component: str, pools: Release
) -> None:
    engine = ours(pools, component)
    assert may(pools, ours(pools, "router"), engine, VLLM)
    assert may(pools, engine, ours(pools, "control"), 8401)
    assert may(pools, engine, DNS, 53, "UDP")
    for other in (*[ours(pools, name) for name in POOLS if name != component], STRANGER):
        assert not may(pools, other, engine, VLLM)
        assert not may(pools, other, engine, AGENT)
    assert not may(pools, ours(pools, "control"), engine, VLLM)
    assert may(pools, engine, INTERNET, 443) == (component != "engine-small-base")  # the only one in a folder


def test_the_control_plane_reaches_the_api_server_and_nobody_else_does(pools: Release, chart: Chart) -> None:
    assert may(pools, ours(pools, "control"), API_SERVER, 6443)
    for component in ("router", *POOLS):
        assert not may(pools, ours(pools, component), API_SERVER, 6443)
    off = chart.render("pools", "engines.kubernetes.enabled=false")
    assert not may(off, ours(off, "control"), API_SERVER, 6443)
    assert off.of("Role") == off.of("RoleBinding") == []
    assert may(off, ours(off, "control"), STORE, 443)


def test_the_helm_test_tries_every_pool(pools: Release) -> None:
    arguments = pools.container("test")["args"]
    for component in POOLS:
        assert f"tenon-{component}.prod.svc:8410" in arguments
        assert f"tenon-{component}.prod.svc:8411" in arguments


def test_the_notes_say_how_a_pool_is_given_away(chart: Chart, tmp_path: Path) -> None:
    """`helm template` renders no notes, so a copy of the chart shows them as an object."""
    copied = tmp_path / "tenon"
    for path in CHART.rglob("*"):
        if path.is_file():
            target = copied / path.relative_to(CHART)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (copied / "notes.txt").write_bytes((CHART / "templates" / "NOTES.txt").read_bytes())
    (copied / "templates" / "notes.yaml").write_text(
        'kind: Notes\nsaid: {{ tpl (.Files.Get "notes.txt") . | toJson }}\n'
    )
    text = chart._run(
        "template", "tenon", str(copied), "--kube-version", "1.32.0",
        "--show-only", "templates/notes.yaml", "--values", str(CHART / "ci" / "pools-values.yaml"),
    )  # fmt: skip
    said = yaml.safe_load(text)["said"]
    assert "  tenon tenant isolate bank_a --level merged --engine tenon-engine-bank-0\n" in said
    for component in POOLS:
        assert f"statefulset/tenon-{component}\n" in said
