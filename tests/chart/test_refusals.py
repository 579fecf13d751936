"""Values that must not be installed, and the sentence that says why."""

import pytest

from tests.chart.charts import Chart, ValuesRefused

BY_SCHEMA = [
    (["image.tag=latest"], "image.tag: Must not validate the schema (not)"),
    (["image.tag=main"], "image.tag: Must not validate the schema (not)"),
    (["engine.image.tag=latest"], "engine.image.tag: Must not validate the schema (not)"),
    (["image.repository=tenon:latest"], "image.repository: Does not match pattern"),
    (["image.digest=sha256:abc"], "image.digest: Does not match pattern"),
    (["engine.base="], "engine.base: String length must be greater than or equal to 1"),
    (["engine.base=../base"], "engine.base: Does not match pattern"),
    (["engine.baseName="], "engine.baseName: String length must be greater than or equal to 1"),
    (["engine.baseName=Qwen 3"], "engine.baseName: Does not match pattern"),
    (["engine.baseRevision=main"], "engine.baseRevision: Does not match pattern"),
    (["secrets.existingSecret="], "secrets.existingSecret: String length must be greater than or equal to 1"),
    (["secrets.serviceToken=hunter2"], "secrets: Additional property serviceToken is not allowed"),
    (["control.replicas=0"], "control.replicas: Must be greater than or equal to 1"),
    (["router.replicas=0"], "router.replicas: Must be greater than or equal to 1"),
    (["engine.replicas=-1"], "engine.replicas: Must be greater than or equal to 0"),
    (["engines.pools[0].replicas=2"], "engines.pools.0: name is required"),
    (["engines.pools[0].name=Large"], "engines.pools.0.name: Does not match pattern"),
    (["engines.pools[0].name=0"], "engines.pools.0.name: Invalid type"),
    (["engines.pools[0].name=a", "engines.pools[0].maxRank=8"], "Additional property maxRank is not allowed"),
    (["engines.pools[0].name=a", "engines.pools[0].level=pinned"], "engines.pools.0.level must be one of"),
    (["engines.pools[0].name=a", "engines.pools[0].maxLoraRank=1024"], "Must be less than or equal to 512"),
    (["engines.unlisted=allow"], "engines.unlisted must be one of the following"),
    (["engines.kubernetes.url=http://api"], "engines.kubernetes.url: Does not match pattern"),
    (["router.ship.to=/tmp"], "router.ship.to: Does not match pattern"),
    (["router.ship.seconds=0"], "router.ship.seconds: Must be greater than or equal to 1"),
    (
        ["control.persistence.accessMode=ReadWriteMany"],
        "control.persistence.accessMode must be one of the following",
    ),
    (["engine.maxLoraRank=1024"], "engine.maxLoraRank: Must be less than or equal to 512"),
    (["engine.gpuMemoryUtilization=2"], "engine.gpuMemoryUtilization: Must be less than or equal to 1"),
    (["engine.device=rocm"], "engine.device must be one of the following"),
    (["engine.maxLoras=two"], "engine.maxLoras: Invalid type"),
    (["router.connectTimeout=0"], "router.connectTimeout: Must be greater than 0"),
    (["logLevel=trace"], "logLevel must be one of the following"),
    (["networkPolicy.enabled=false"], "networkPolicy: Additional property enabled is not allowed"),
    (["trainer.image.tag=latest"], "trainer.image.tag: Must not validate the schema (not)"),
    (["trainer.endpointKey.host=https://judge"], "trainer.endpointKey.host: Does not match pattern"),
    (["trainer.devices=0"], "trainer.devices: Must be greater than or equal to 1"),
    (["trainer.overrides[0]=--fresh"], "trainer.overrides.0: Does not match pattern"),
    (["trainer.egress[0].ports[0].port=443"], "trainer.egress.0: to is required"),
    (["replicaCount=2"], "(root): Additional property replicaCount is not allowed"),
]

BY_CHECK = [
    (
        "minimal",
        ["control.replicas=2"],
        "control.replicas must be 1: the workspace is one volume with the log's key",
    ),
    ("minimal", ["control.database.existingSecret=registry"], "control.egress is empty"),
    ("minimal", ["control.s3.existingSecret=store"], "control.s3.bucket is empty"),
    ("gpu", ["control.s3.prefix=tenon"], "control.s3.prefix must end with /"),
    ("gpu", ["control.oidc.audience="], "control.oidc.audience is empty"),
    ("gpu", ["control.oidc.jwksUrl=https://login.example.com/keys"], "must be given, and not both"),
    (
        "minimal",
        ["engine.baseRevision="],
        "engine.baseRevision is empty: a base from the hub is pinned by its commit",
    ),
    ("minimal", ["engine.modelClaim=models"], "engine.modelClaim has no use with a base from the hub"),
    (
        "cpu-demo",
        ["engine.modelClaim="],
        "name its claim in engine.modelClaim and give the folder as /models/...",
    ),
    (
        "cpu-demo",
        ["engine.base=/etc/base"],
        "name its claim in engine.modelClaim and give the folder as /models/...",
    ),
    ("cpu-demo", [f"engine.baseRevision:={'0' * 40}"], "engine.baseRevision belongs to a base from the hub"),
    (
        "minimal",
        ["engine.resources.limits.nvidia\\.com/gpu=1"],
        "engine.resources.limits must not name nvidia.com/gpu: engine.tensorParallelSize says how many",
    ),
    ("fake-engine", ["engine.device=cuda"], "engine.unsafeFakeEngine needs engine.device: cpu"),
    (
        "minimal",
        ["router.drainSeconds=120"],
        "router.gracePeriodSeconds must be longer than router.drainSeconds",
    ),
    (
        "minimal",
        ["engine.gracePeriodSeconds=5"],
        "engine.gracePeriodSeconds must be longer than engine.drainSeconds",
    ),
    ("minimal", ["engine.replicas=0"], "engine.replicas is 0 and no pool has any: nobody would answer"),
    ("minimal", ["engine.drain=170"], "engine.gracePeriodSeconds must be longer than engine.drainSeconds"),
    (
        "minimal",
        ["engines.pools[0].name=a", "engines.pools[0].drain=170"],
        "engines.pools[a].gracePeriodSeconds must be longer than engines.pools[a].drainSeconds",
    ),
    (
        "minimal",
        ["engines.pools[0].name=a", "engines.pools[1].name=a"],
        "engines.pools[a] is there twice",
    ),
    (
        "minimal",
        [f"fullnameOverride={'a' * 38}", "engines.pools[0].name=large-ranks"],
        "is longer than the 52 characters of a StatefulSet's",
    ),
    (
        "minimal",
        ["engines.pools[0].name=a", "engines.pools[0].base=Qwen/Qwen3-4B"],
        "engines.pools[a].baseName is empty: a pool with a base of its own has a name for it",
    ),
    (
        "minimal",
        ["engines.pools[0].name=a", "engines.pools[0].base=Qwen/Qwen3-4B", "engines.pools[0].baseName=b"],
        "engines.pools[a].baseRevision is empty",
    ),
    (
        "cpu-demo",
        ["engines.pools[0].name=a", "engines.pools[0].base=/models/other", "engines.pools[0].baseName=b"],
        "name its claim in engines.pools[a].modelClaim",
    ),
    (
        "minimal",
        ["engines.pools[0].name=a", "engines.pools[0].level=merged"],
        "engines.pools[a].level is for a pool that engines.pools[a].tenant gives to somebody",
    ),
    ("pools", ["engines.kubernetes.egress=null"], "engines.kubernetes.egress is empty"),
    ("pools", ["control.s3.bucket=", "control.s3.existingSecret="], "there is no bucket to ship to"),
    ("pools", ["router.ship.egress=null"], "router.ship.egress is empty"),
    ("pools", ["control.s3.prefix=records/"], "router.ship.to is where adapters are kept"),
    ("gpu", ["ingress.host="], "ingress.host is empty: an Ingress without a host answers for every name"),
    ("gpu", ["ingress.tlsSecretName="], "ingress.tlsSecretName is empty: API keys would travel in clear"),
    (
        "gpu",
        ["monitoring.namespace="],
        "monitoring.namespace is empty: the NetworkPolicies would keep Prometheus out",
    ),
    ("trainer", ["trainer.recipe="], "trainer.recipe or trainer.recipeConfigMap must be given"),
    ("trainer", ["trainer.recipeConfigMap=mine"], "trainer.recipe or trainer.recipeConfigMap must be given"),
    ("trainer", ["trainer.workspaceClaim="], "trainer.workspaceClaim is empty"),
    (
        "trainer",
        ["trainer.workspaceClaim=tenon-workspace"],
        "trainer.workspaceClaim must not be the control plane's: two writers",
    ),
    (
        "trainer",
        ["trainer.workspaceClaim=mine", "control.persistence.existingClaim=mine"],
        "trainer.workspaceClaim must not be the control plane's: two writers",
    ),
    ("trainer", ["trainer.endpointKey.host="], "trainer.endpointKey.host is empty"),
    ("trainer", ["trainer.devices=1"], "trainer.shard needs trainer.devices above 1"),
    (
        "trainer",
        ["trainer.resources.limits.nvidia\\.com/gpu=1"],
        "trainer.resources.limits must not name nvidia.com/gpu: trainer.devices says how many",
    ),
    (
        "minimal",
        [f"fullnameOverride={'a' * 41}"],
        "must be 1 to 40 of a-z, 0-9 and '-', starting with a letter",
    ),
    ("minimal", ["fullnameOverride=9lives"], "must be 1 to 40 of a-z, 0-9 and '-', starting with a letter"),
]


@pytest.mark.parametrize(("overrides", "sentence"), BY_SCHEMA, ids=str)
def test_the_schema_refuses(overrides: list[str], sentence: str, chart: Chart) -> None:
    with pytest.raises(ValuesRefused) as refused:
        chart.render("minimal", *overrides)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(("values", "overrides", "sentence"), BY_CHECK, ids=str)
def test_a_check_refuses(values: str, overrides: list[str], sentence: str, chart: Chart) -> None:
    chart.render(values)  # it is the override that is at fault
    with pytest.raises(ValuesRefused) as refused:
        chart.render(values, *overrides)
    assert "These values cannot work:" in str(refused.value)
    assert sentence in str(refused.value)


def test_a_release_name_that_makes_no_service_name_is_refused(chart: Chart) -> None:
    with pytest.raises(ValuesRefused, match=r'the name "my\.release" must be .*: set fullnameOverride'):
        chart.render("minimal", name="my.release")
    chart.render("minimal", "fullnameOverride=mine", name="my.release")


@pytest.mark.parametrize(
    "value",
    [
        "secrets.existingSecret",
        "engine.base",
        "engine.baseName",
        "monitoring.podLabels",
        "networkPolicy.dns.namespace",
        "networkPolicy.dns.podLabels",
        "networkPolicy.hub",
    ],
)
def test_a_null_does_not_open_what_was_closed(value: str, chart: Chart) -> None:
    """A null removes the key: no schema sees it, and a selector that is not there selects everybody."""
    with pytest.raises(ValuesRefused, match=rf"\* {value} is empty"):
        chart.render("gpu", f"{value}=null")


def test_all_faults_are_told_at_once(chart: Chart) -> None:
    with pytest.raises(ValuesRefused) as refused:
        chart.render("minimal", "control.replicas=2", "engine.baseRevision=", "ingress.enabled=true")
    assert str(refused.value).count("\n  * ") == 4


def test_tls_may_end_elsewhere(chart: Chart) -> None:
    release = chart.render("gpu", "ingress.tlsSecretName=", "ingress.tlsElsewhere=true")
    assert "tls" not in release.of("Ingress")[0]["spec"]


def test_longest_name_still_makes_valid_objects(chart: Chart) -> None:
    """A set's pods carry a label of its name and an 11-character hash; a label value holds 63."""
    release = chart.render("minimal", f"fullnameOverride={'a' * 40}")
    for document in release.documents:
        limit = 52 if document["kind"] == "StatefulSet" else 63
        assert len(document["metadata"]["name"]) <= limit
