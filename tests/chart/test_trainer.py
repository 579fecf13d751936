"""The trainer's Job: a command that tenon understands, a recipe that parses, resumption, closed doors."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from registry.models import Tenant
from server import settings
from server.assembly import bases
from server.assembly.catalog import initialise, open_catalog
from tests.chart.charts import Chart, Document, Release, labels_of
from tests.chart.test_network import CONTROL, DNS, INTERNET, METADATA, OURS, PRIVATE, Pod, may, ours
from tests.chart.test_processes import TENON
from tests.support.tiny_model import RECIPE, case, conversation, write_jsonl, write_tiny_base
from trainer.recipes import Recipe, parse_recipe

MINIO = Pod("prod", {"app": "minio"})
WITHOUT_SOURCES = ("trainer.internet=false", "trainer.egress=null")


@pytest.fixture
def trainer(chart: Chart) -> Release:
    return chart.render("trainer")


def job(release: Release) -> Document:
    (found,) = release.of("Job")
    return found


def command(release: Release) -> list[str]:
    said: list[str] = release.container("trainer")["command"]
    return said


def recipe(release: Release, *overrides: str) -> Recipe:
    return parse_recipe(release.one("ConfigMap", "trainer")["data"]["recipe.yaml"], overrides=overrides)


@pytest.mark.parametrize("kube", ["1.30.0", "1.32.0", "1.37.0"])
def test_kubernetes_knows_every_field(chart: Chart, kube: str) -> None:
    for document in chart.render("trainer", kube=kube).documents:
        kubernetes_validate.validate(document, kube, strict=True)


def test_there_is_none_unless_asked_for(chart: Chart) -> None:
    release = chart.render("minimal")
    assert release.of("Job") == []
    assert "trainer" not in {labels_of(one)["app.kubernetes.io/component"] for one in release.documents}


def test_its_command_trains_a_recipe_that_parses(trainer: Release, chart: Chart) -> None:
    assert command(trainer) == [
        "tenon", "train", "/recipes/recipe.yaml", "--snapshot-every=120", "--devices=4", "--shard",
        "-o", "seed=7",
    ]  # fmt: skip
    overrides = [
        after for word, after in zip(command(trainer), command(trainer)[1:], strict=False) if word == "-o"
    ]
    planned = recipe(trainer, *overrides)
    assert planned.seed == 7
    assert planned.settings.batch_size % 4 == 0
    mounts = {mount["mountPath"] for mount in trainer.container("trainer")["volumeMounts"]}
    for file in (planned.data.train, planned.data.evaluation or ""):
        assert file.startswith("s3://") or any(file.startswith(f"{mount}/") for mount in mounts)
    one = chart.render("trainer", "trainer.devices=1", "trainer.shard=false", "trainer.overrides=null")
    assert command(one) == ["tenon", "train", "/recipes/recipe.yaml", "--snapshot-every=120"]


def test_the_recipe_lies_where_the_command_looks(trainer: Release, chart: Chart) -> None:
    named = chart.render("trainer", "trainer.recipe=", "trainer.recipeConfigMap=mine")
    for release, name in ((trainer, "tenon-trainer"), (named, "mine")):
        volumes = {one["name"]: one for one in release.pods["trainer"]["spec"]["volumes"]}
        assert volumes["recipe"] == {"name": "recipe", "configMap": {"name": name}}
        mounts = release.container("trainer")["volumeMounts"]
        assert {"name": "recipe", "mountPath": "/recipes", "readOnly": True} in mounts
    assert trainer.one("ConfigMap", "trainer")["metadata"]["name"] == "tenon-trainer"
    assert "trainer" not in {labels_of(one)["app.kubernetes.io/component"] for one in named.of("ConfigMap")}


def test_another_recipe_is_another_job_and_another_router_is_not(chart: Chart) -> None:
    """A Job cannot be changed: what its pod is made of is in its name."""

    def name(*overrides: str) -> str:
        return str(job(chart.render("trainer", *overrides))["metadata"]["name"])

    assert name() == name("router.replicas=4", "trainer.backoffLimit=5", "trainer.ttlSecondsAfterFinished=60")
    others = ["trainer.overrides[0]=seed=8", "trainer.recipe=kind: other", "trainer.image.tag=0.2.0",
              "trainer.devices=2", "secrets.version:=4"]  # fmt: skip
    assert len({name(), *map(name, others)}) == 1 + len(others)
    longest = chart.render("trainer", f"fullnameOverride={'a' * 40}")
    assert len(job(longest)["metadata"]["name"]) <= 63


def test_an_evicted_pod_is_replaced_and_does_not_count(trainer: Release) -> None:
    spec = job(trainer)["spec"]
    ignored, hopeless = spec["podFailurePolicy"]["rules"]
    assert ignored == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert hopeless["action"] == "FailJob"
    assert hopeless["onExitCodes"] == {"containerName": "trainer", "operator": "In", "values": [2]}
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # what a podFailurePolicy asks for
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"]) == (2, 86400)
    # the snapshots lie in the workspace, and that on a claim
    (volume,) = [one for one in spec["template"]["spec"]["volumes"] if one["name"] == "workspace"]
    assert volume["persistentVolumeClaim"] == {"claimName": "tenon-training"}
    assert labels_of(job(trainer))["kueue.x-k8s.io/queue-name"] == "training"


def test_a_limit_that_is_not_given_is_not_there(chart: Chart) -> None:
    release = chart.render("trainer", "trainer.activeDeadlineSeconds=null", "trainer.queue=")
    assert "activeDeadlineSeconds" not in job(release)["spec"]
    assert "kueue.x-k8s.io/queue-name" not in labels_of(job(release))


def test_every_process_has_a_gpu(trainer: Release, chart: Chart) -> None:
    assert trainer.container("trainer")["resources"]["limits"]["nvidia.com/gpu"] == 4
    amd = chart.render("trainer", "trainer.gpuResource=amd.com/gpu", "trainer.devices=8")
    assert amd.container("trainer")["resources"]["limits"]["amd.com/gpu"] == 8
    cpu = chart.render("trainer", "trainer.device=cpu")
    assert cpu.container("trainer")["resources"]["limits"].keys() == {"memory"}


def test_it_reads_what_the_trainer_reads_and_writes_only_its_workspace(
    trainer: Release, chart: Chart
) -> None:
    environment = trainer.environment("trainer")
    known = {f"TENON_{name.upper()}" for name in settings.TrainerSettings.model_fields} | {"TENON_WORKSPACE"}
    assert environment.keys() <= known
    assert environment["TENON_ENDPOINT_KEY_FILE"] == "/etc/tenon/endpoint/key"
    assert environment["TENON_ENDPOINT_HOST"] == "judge.models.svc:8000"
    assert environment["TENON_WORKSPACE"] == trainer.environment("control")["TENON_WORKSPACE"]
    assert trainer.container("trainer")["envFrom"] == [{"secretRef": {"name": "rows-s3"}}]
    mounts = trainer.container("trainer")["volumeMounts"]
    assert [one["mountPath"] for one in mounts if not one.get("readOnly")] == [
        "/var/lib/tenon",
        "/tmp",
        "/dev/shm",
    ]
    # none of the platform's own secrets: what it learns is pushed with the workspace's keys
    text = json.dumps(trainer.pods["trainer"])
    assert '"secretName": "tenon"' not in text
    bare = chart.render(
        "trainer", "trainer.endpointKey.existingSecret=", "trainer.environmentSecret=", "trainer.dataClaim="
    )
    assert bare.environment("trainer").keys() == {"TENON_WORKSPACE"}
    assert "envFrom" not in bare.container("trainer")
    names = [volume["name"] for volume in bare.pods["trainer"]["spec"]["volumes"]]
    assert names == ["workspace", "recipe", "scratch", "shm"]


def test_nobody_reaches_it_and_it_reaches_its_sources_only(trainer: Release, chart: Chart) -> None:
    closed = chart.render("trainer", *WITHOUT_SOURCES)
    for release in (trainer, closed):
        pod = ours(release, "trainer")
        assert set(release.one("NetworkPolicy", "trainer")["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        for component in OURS:
            assert not may(release, ours(release, component), pod, 22)
            for port in (8400, CONTROL, 8410, 8411, 443):
                # a router is open to everybody, so it is the trainer's own policy that says no
                assert not may(release, pod, ours(release, component), port)
        for place in (METADATA, PRIVATE):
            assert not may(release, pod, place, 443)
    inside = ours(trainer, "trainer")
    assert may(trainer, inside, INTERNET, 443)
    assert not may(trainer, inside, INTERNET, 80)
    assert may(trainer, inside, MINIO, 9000)
    assert may(trainer, inside, DNS, 53, "UDP")
    for place, port, protocol in ((INTERNET, 443, "TCP"), (MINIO, 9000, "TCP"), (DNS, 53, "UDP")):
        assert not may(closed, ours(closed, "trainer"), place, port, protocol)


@pytest.mark.slow
def test_its_command_trains_in_a_workspace_and_again_is_no_work(chart: Chart, tmp_path: Path) -> None:
    """What the kubelet would start, on folders in the volumes' places."""
    text = RECIPE.replace("train.jsonl", "/data/train.jsonl").replace("cases.jsonl", "/data/cases.jsonl")
    values = tmp_path / "recipe.yaml"
    values.write_text(text.replace(", schema: schema.json", ""))
    release = chart.render(
        "trainer", f"trainer.recipe:={values.read_text().replace(',', chr(92) + ',')}",
        "trainer.overrides[0]=sft.steps=3", "trainer.devices=1", "trainer.shard=false", "trainer.device=cpu",
        "trainer.endpointKey.existingSecret=",
    )  # fmt: skip
    places = {
        "/var/lib/tenon": tmp_path / "volume",
        "/recipes": tmp_path / "recipes",
        "/data": tmp_path / "data",
    }
    for place in places.values():
        place.mkdir()
    seed(places["/var/lib/tenon"] / "workspace", tmp_path / "base")
    write_jsonl(places["/data"] / "train.jsonl", [conversation(number) for number in range(24)])
    write_jsonl(places["/data"] / "cases.jsonl", [case(number) for number in range(7)])
    mounted = release.one("ConfigMap", "trainer")["data"]["recipe.yaml"]
    (places["/recipes"] / "recipe.yaml").write_text(mounted.replace("/data/", f"{places['/data']}/"))

    def run() -> "subprocess.CompletedProcess[str]":
        def here(text: str) -> str:
            for place, folder in places.items():
                text = text.replace(place, str(folder))
            return text

        environment = {name: here(value) for name, value in release.environment("trainer").items()}
        words = [here(word) for word in command(release)]
        assert words[0] == "tenon"
        return subprocess.run(
            [*TENON, *words[1:]], capture_output=True, text=True, check=False, timeout=100, cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **environment},
        )  # fmt: skip

    first = run()
    assert first.returncode == 0, first.stderr
    again = run()
    assert again.returncode == 0, again.stderr
    assert first.stdout == again.stdout != ""  # the same version
    assert "learn done in" in first.stderr
    assert "learn reused" in again.stderr
    version = first.stdout.strip()
    catalog = open_catalog_at(places["/var/lib/tenon"] / "workspace")
    assert [item.version for name in catalog.adapters("bank_a") for item in catalog.versions(name)] == [
        version
    ]


def seed(workspace: Path, base: Path) -> None:
    made = initialise(workspace)
    catalog = open_catalog(made)
    catalog.create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="test")
    base.mkdir()
    write_tiny_base(base)
    bases.register(made, catalog, name="tiny", source=str(base), revision=None, actor="test")


def open_catalog_at(workspace: Path) -> Any:
    from server.workspace import find

    return open_catalog(find(workspace))
