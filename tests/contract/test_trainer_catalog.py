"""What the trainer needs of a catalog: one in memory, a real one, and one over HTTP with its own key."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.errors import AdapterBaseMismatch, BaseNotFound, IntakeRefused, TenantNotFound, VersionNotFound
from registry.evidence import Metric, Report
from registry.manifests import Provenance
from registry.models import Role
from registry.names import AdapterName
from registry.signing.types import REPORT
from tests.support.adapters import tiny_base, tiny_fingerprint, write_adapter
from tests.support.registries import open_world, signer
from tests.support.remote import remote
from trainer.ports import Catalog
from trainer.testing import InMemoryCatalog

NAME = AdapterName("bank_a", "assistant")
BASE, CONTRACT = tiny_base()


@pytest.fixture(params=["memory", "local", "remote"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    if request.param == "memory":
        memory = InMemoryCatalog(tenants=frozenset({"bank_a"}))
        memory.register_base(BASE, CONTRACT)
        yield memory
        return
    if request.param == "remote":
        with remote(tmp_path) as found, found.as_("bank_a", Role.TRAINER) as trainer:
            yield trainer
        return
    world = open_world(tmp_path)
    yield world.catalog
    world.database.close()


def push(catalog: Catalog, folder: Path, *, name: AdapterName = NAME, base: Digest | None = None) -> Digest:
    digest = base or BASE.identity()
    return catalog.push(
        name,
        folder,
        base=digest,
        fingerprint=tiny_fingerprint(digest),
        provenance=Provenance(method="sft"),
        actor="t",
    )


def report(version: Digest) -> Report:
    figure = Metric(value=0.9, n=10, stderr=0.09)
    return Report(
        tenant="bank_a", adapter="assistant", version=version, base=BASE.identity(), suite=Digest.of(b"s"),
        metrics={"policy": figure}, baseline={"policy": figure}, adapter_active=True,
    )  # fmt: skip


def test_a_base_is_found_by_name_and_digest(catalog: Catalog) -> None:
    assert catalog.base("tiny") == catalog.base(BASE.identity()) == (BASE.identity(), BASE, CONTRACT)
    with pytest.raises(BaseNotFound):
        catalog.base("other")


def test_a_version_is_its_bytes(catalog: Catalog, tmp_path: Path) -> None:
    first = push(catalog, write_adapter(tmp_path / "one", BASE, seed=1))
    assert push(catalog, write_adapter(tmp_path / "same", BASE, seed=1)) == first
    assert push(catalog, write_adapter(tmp_path / "two", BASE, seed=2)) != first


def test_both_compute_the_same_digest(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "one", BASE)
    memory = InMemoryCatalog(tenants=frozenset({"bank_a"}))
    memory.register_base(BASE, CONTRACT)
    world = open_world(tmp_path)
    assert push(memory, folder) == push(world.catalog, folder)
    world.database.close()


def test_what_does_not_belong_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "one", BASE)
    with pytest.raises(TenantNotFound):
        push(catalog, folder, name=AdapterName("nobody", "assistant"))
    with pytest.raises(BaseNotFound):
        push(catalog, folder, base=Digest.of(b"no base"))
    (folder / "training_args.bin").write_bytes(b"\x80\x04")
    with pytest.raises(IntakeRefused) as caught:
        push(catalog, folder)
    assert not isinstance(caught.value, AdapterBaseMismatch)


def test_a_report_needs_its_version(catalog: Catalog, tmp_path: Path) -> None:
    version = push(catalog, write_adapter(tmp_path / "one", BASE))
    good, stray = report(version), report(Digest.of(b"no version"))
    sign = signer("trainer").sign
    assert catalog.file_report(sign(REPORT, good.canonical()), actor="t") == good.identity()
    assert catalog.file_report(sign(REPORT, good.canonical()), actor="t") == good.identity()
    with pytest.raises(VersionNotFound):
        catalog.file_report(sign(REPORT, stray.canonical()), actor="t")
