"""docs/guides/kubernetes.md says what the chart does: the values it names, the secrets, what it seeds."""

import re
import subprocess
from pathlib import Path

import yaml

from server.engines.discovery.static import parse
from tests.chart.charts import ROOT, Chart
from tests.chart.schema import at, schema
from tests.chart.test_pods import SECRET_KEYS
from tests.chart.test_processes import KEPT_OUT
from tests.journeys.commands import tenon_here
from trainer.recipes import parse_recipe

GUIDE = (ROOT / "docs" / "guides" / "kubernetes.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


def test_every_value_it_names_exists() -> None:
    roots = "|".join(schema()["properties"])
    named = re.findall(rf"`((?:{roots})(?:\.\w+)+)`", GUIDE)
    assert len(set(named)) > 15
    for value in named:
        at(value)


def test_it_makes_the_secret_that_the_pods_mount() -> None:
    keys = set(re.findall(r"--from-file=([\w-]+)=", GUIDE))
    assert keys == set().union(*SECRET_KEYS.values())


def test_it_keeps_the_secrets_off_the_volume() -> None:
    assert sorted(re.findall(r"--exclude=\./secrets/(\S+)", GUIDE)) == sorted(KEPT_OUT)


def test_its_values_render(chart: Chart, tmp_path: Path) -> None:
    (text,) = [block for block in blocks("yaml") if block.startswith("# my-values.yaml")]
    file = tmp_path / "my-values.yaml"
    file.write_text(text)
    done = subprocess.run(
        [chart.helm, "template", "tenon", ROOT / "helm" / "tenon", "--kube-version", "1.32.0", "-f", file],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_seeding_pod_writes_what_the_control_plane_mounts(chart: Chart) -> None:
    (text,) = [block for block in blocks("yaml") if "name: seed" in block]
    claim, pod = yaml.safe_load_all(text)
    release = chart.render("minimal", f"control.persistence.existingClaim={claim['metadata']['name']}")
    control = release.pods["control"]["spec"]
    (mounted,) = [volume for volume in control["volumes"] if volume["name"] == "workspace"]
    assert pod["spec"]["volumes"] == [mounted]
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert mount in release.container("control")["volumeMounts"]
    assert f"mkdir -p {release.environment('control')['TENON_WORKSPACE']}\n" in GUIDE
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        assert pod["spec"]["securityContext"][field] == control["securityContext"][field]


def test_its_pools_render_and_its_commands_name_their_engines(chart: Chart, tmp_path: Path) -> None:
    (mine,) = [block for block in blocks("yaml") if block.startswith("# my-values.yaml")]
    (pools,) = [block for block in blocks("yaml") if block.startswith("# pools-values.yaml")]
    files = []
    for name, text in (("my", mine), ("pools", pools)):
        files += ["-f", str(tmp_path / f"{name}.yaml")]
        (tmp_path / f"{name}.yaml").write_text(text)
    done = subprocess.run(
        [chart.helm, "template", "tenon", ROOT / "helm" / "tenon", "--kube-version", "1.32.0", *files],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    (text,) = [each["data"]["engines.yaml"] for each in documents if "engines.yaml" in each.get("data", {})]
    engines = parse(text.encode())
    assert {one.base for one in engines.values()} == {"qwen3-8b", "qwen3-4b"}
    named = set(re.findall(r"\btenon-engine-(?:[a-z]+-)?[0-9]+\b", GUIDE))
    assert named == {"tenon-engine-0", "tenon-engine-large-0", "tenon-engine-bank-0"}
    assert named <= engines.keys()
    assert engines["tenon-engine-bank-0"].tenant == "bank_a"


def test_its_commands_take_the_options_it_gives() -> None:
    (given,) = re.findall(r"tenon tenant isolate (bank_a --level dedicated --engine \S+)", GUIDE)
    done = tenon_here("tenant", "isolate", *given.split(), "-w", "/nowhere")
    assert (done.code, "no workspace" in done.err) == (1, True)  # not 2: every option is known


def test_its_training_renders_a_job_whose_recipe_parses(chart: Chart, tmp_path: Path) -> None:
    (mine,) = [block for block in blocks("yaml") if block.startswith("# my-values.yaml")]
    (training,) = [block for block in blocks("yaml") if block.startswith("# trainer-values.yaml")]
    files = []
    for name, text in (("my", mine), ("trainer", training)):
        files += ["-f", str(tmp_path / f"{name}.yaml")]
        (tmp_path / f"{name}.yaml").write_text(text)
    done = subprocess.run(
        [chart.helm, "template", "tenon", ROOT / "helm" / "tenon", "--kube-version", "1.32.0", *files],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    assert [document["kind"] for document in documents].count("Job") == 1
    (text,) = [
        document["data"]["recipe.yaml"] for document in documents if "recipe.yaml" in document.get("data", {})
    ]
    recipe = parse_recipe(text)
    assert recipe.settings.batch_size % 2 == 0
