"""The chart sets exactly the settings that the processes read, with values that they accept."""

import os
from typing import Any

import pytest

from registry import names
from server import settings
from server.engines.sizes import RANKS
from tests.chart.charts import CI_VALUES, Chart, Release
from tests.chart.schema import at

ROLES: dict[str, type[settings.RoleSettings]] = {
    "control": settings.ControlSettings,
    "router": settings.RouterSettings,
    "engine": settings.EngineSettings,
}
FOR_LIBRARIES = {
    "control": set[str](),
    "router": set[str](),
    "engine": {"POD_IP", "HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"},
}
"""Variables that Tenon does not read: hub library, and the address from which TENON_ENGINE_URL is made."""
ONLY_WHEN_GIVEN = {
    "TENON_BASE_REVISION", "TENON_MAX_MODEL_LEN", "TENON_FAKE_ENGINE", "TENON_DATABASE_URL_FILE",
    "TENON_METRICS_TOKEN_FILE", "TENON_TRACES_URL", "TENON_TRACES_RATIO",
    "TENON_RETENTION_KEY_FILE", "TENON_TOOL_CALL_PARSER",
    "TENON_KUBERNETES_SERVICES", "TENON_KUBERNETES_URL", "TENON_KUBERNETES_ACCOUNT",
    *(name for name in (f"TENON_{field.upper()}" for field in settings.ControlSettings.model_fields)
      if name.startswith(("TENON_S3_", "TENON_OIDC_"))),
}  # fmt: skip


NOT_IN_A_CLUSTER = {"TENON_VLLM_SOCKET", "TENON_CPU_CORES"}
"""A socket is for routers on the same machine; here they are in pods of their own. Which cores a pod has is
the kubelet's to say."""


def variables(role: type[settings.RoleSettings], *, required: bool = False) -> set[str]:
    return {
        f"TENON_{name.upper()}"
        for name, field in role.model_fields.items()
        if field.is_required() or not required
    } - NOT_IN_A_CLUSTER


def read(role: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> settings.RoleSettings:
    """What the process in the container would start with."""
    for name in os.environ:
        if name.startswith("TENON_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return settings.load(ROLES[role])


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_a_setting_and_every_setting_is_set(role: str, release: Release) -> None:
    given = set(release.environment(role))
    assert given <= variables(ROLES[role]) | FOR_LIBRARIES[role]
    assert given >= variables(ROLES[role], required=True)
    assert given >= variables(ROLES[role]) - ONLY_WHEN_GIVEN


def test_the_ci_files_together_set_every_setting(chart: Chart) -> None:
    for role, model in ROLES.items():
        seen = {name for values in CI_VALUES for name in chart.render(values).environment(role)}
        assert seen == variables(model) | FOR_LIBRARIES[role]


@pytest.mark.parametrize("role", ROLES)
def test_the_processes_accept_the_values(
    role: str, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(role, release.environment(role), monkeypatch)


def test_only_the_serving_containers_have_an_environment(release: Release) -> None:
    named = {name["name"] for _, name in release.containers() if name.get("env") or name.get("envFrom")}
    assert named - {"trainer", "ship"} == set(ROLES)  # test_trainer, test_ship


def test_values_arrive_as_they_were_meant(gpu: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = read("engine", gpu.environment("engine"), monkeypatch)
    assert isinstance(engine, settings.EngineSettings)
    assert engine.max_model_len == 1048576  # not 1.048576e+06
    assert engine.tensor_parallel_size == 2
    assert engine.base_revision == "0123456789abcdef0123456789abcdef01234567"
    assert engine.engine == "adapters-engine-0"
    assert engine.engine_url == "http://10.1.2.3:8411"
    assert engine.vllm_host == "0.0.0.0"  # routers reach it; the NetworkPolicy guards it
    assert not engine.fake_engine
    router = read("router", gpu.environment("router"), monkeypatch)
    assert isinstance(router, settings.RouterSettings)
    assert router.writer == "adapters-router-0"
    assert router.first_byte_timeout == 120.5
    assert router.log_level == "warning"


def test_the_fake_engine_is_asked_for_by_name_only(chart: Chart) -> None:
    assert chart.render("fake-engine").environment("engine")["TENON_FAKE_ENGINE"] == "true"
    for values in set(CI_VALUES) - {"fake-engine"}:
        assert "TENON_FAKE_ENGINE" not in chart.render(values).environment("engine")


def test_processes_find_the_control_plane(release: Release) -> None:
    service = release.one("Service", "control")
    (port,) = service["spec"]["ports"]
    url = f"http://{service['metadata']['name']}.prod.svc:{port['port']}"
    assert release.environment("router")["TENON_CONTROL_URL"] == url
    assert release.environment("engine")["TENON_CONTROL_URL"] == url


def test_migrations_are_for_the_workspace_that_is_served(release: Release) -> None:
    workspace = release.environment("control")["TENON_WORKSPACE"]
    url_file = release.environment("control").get("TENON_DATABASE_URL_FILE")
    served = ["--database-url-file", url_file] if url_file else [workspace]
    assert release.container("migrations")["command"] == ["tenon", "init", "--upgrade", *served]
    (kind,) = [name for name, pod in release.pods.items() if "initContainers" in pod["spec"]]
    assert kind == "control"
    # ReadWriteOnce and one writer of the log: never two pods at a time
    assert release.one("Deployment", "control")["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("role", ROLES)
def test_each_container_runs_its_role(role: str, release: Release) -> None:
    assert release.container(role)["command"] == ["tenon", "serve", role]


def allowed(role: str, field: str) -> Any:
    return ROLES[role].model_json_schema()["properties"][field]


@pytest.mark.parametrize(
    ("value", "role", "field"),
    [
        ("logLevel", "router", "log_level"),
        ("logFormat", "router", "log_format"),
        ("engine.device", "engine", "device"),
        ("engine.dtype", "engine", "dtype"),
        ("engine.loraSizes", "engine", "lora_sizes"),
    ],
)
def test_the_schema_allows_the_choices_that_the_settings_allow(value: str, role: str, field: str) -> None:
    assert sorted(at(value)["enum"]) == sorted(allowed(role, field)["enum"])


def test_the_schema_allows_the_ranks_and_names_that_the_engine_allows() -> None:
    assert at("engine.maxLoraRank")["maximum"] == max(RANKS)
    assert at("engine.baseName")["pattern"] == names.PATTERN


SAME_DEFAULT = {
    "control.engineSilence": ("control", "engine_silence"),
    "router.connectTimeout": ("router", "connect_timeout"),
    "router.firstByteTimeout": ("router", "first_byte_timeout"),
    "router.idleTimeout": ("router", "idle_timeout"),
    "router.keepAlive": ("router", "keep_alive"),
    "router.drain": ("router", "drain"),
    "router.maxStaleness": ("router", "max_staleness"),
    "router.engineRequests": ("router", "engine_requests"),
    "router.queueLength": ("router", "queue_length"),
    "router.queueSeconds": ("router", "queue_seconds"),
    "router.queueAging": ("router", "queue_aging"),
    "router.promptTokenBytes": ("router", "prompt_token_bytes"),
    "router.choices": ("router", "choices"),
    "engine.maxLoras": ("engine", "max_loras"),
    "engine.maxLoraRank": ("engine", "max_lora_rank"),
    "engine.loraSizes": ("engine", "lora_sizes"),
    "engine.kvCacheGib": ("engine", "kv_cache_gib"),
    "engine.gpuMemoryUtilization": ("engine", "gpu_memory_utilization"),
    "engine.tensorParallelSize": ("engine", "tensor_parallel_size"),
    "engine.heartbeat": ("engine", "heartbeat"),
    "engine.drain": ("engine", "engine_drain"),
    "engine.device": ("engine", "device"),
    "engine.dtype": ("engine", "dtype"),
    "logLevel": ("engine", "log_level"),
    "logFormat": ("engine", "log_format"),
}


@pytest.mark.parametrize("value", SAME_DEFAULT)
def test_a_default_is_the_same_in_the_chart_and_in_the_process(value: str, chart: Chart) -> None:
    role, field = SAME_DEFAULT[value]
    rendered = chart.render("minimal").environment(role)[f"TENON_{field.upper()}"]
    default = ROLES[role].model_fields[field].default
    assert type(default)(rendered) == default


@pytest.mark.parametrize("value", [name for name in SAME_DEFAULT if name not in {"engine.maxLoraRank"}])
def test_the_schema_has_the_bounds_of_the_settings(value: str) -> None:
    role, field = SAME_DEFAULT[value]
    bounds = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    assert {key: at(value)[key] for key in bounds & at(value).keys()} == {
        key: allowed(role, field)[key] for key in bounds & allowed(role, field).keys()
    }


@pytest.mark.parametrize(("size", "gib"), [("20Gi", 16.0), ("1Ti", 819.2), ("512Mi", 0.4)])
def test_adapters_go_before_the_kubelet_evicts_the_pod(size: str, gib: float, chart: Chart) -> None:
    release = chart.render("minimal", f"engine.adapterCacheSize={size}")
    assert float(release.environment("engine")["TENON_CACHE_GIB"]) == pytest.approx(gib)
    (volume,) = [one for one in release.pods["engine"]["spec"]["volumes"] if one["name"] == "adapters"]
    assert volume["emptyDir"]["sizeLimit"] == size
    assert ROLES["engine"].model_fields["cache_gib"].default == 16.0, "of the chart's own size"
