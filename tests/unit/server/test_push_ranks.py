"""How large an adapter `tenon adapter push` lets in: what the registry takes, here and behind a URL."""

from pathlib import Path

import pytest

from registry.errors import AdapterRankTooHigh
from registry.models import Role, Tenant
from registry.names import AdapterName
from server.assembly import referencing
from server.assembly.catalog import initialise
from server.assembly.place import Place, open_place
from server.assembly.pushing import Pushed, push
from server.assembly.reference_job import Job
from server.engines.sizes import RANKS
from server.settings import RegistrySettings
from tests.support.adapters import tiny_base, write_adapter
from tests.support.remote import remote

NAME = AdapterName("bank_a", "assistant")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The largest rank that each job for a fingerprint may load; none of them is run."""
    jobs: list[int] = []

    def noted(job: Job, folder: Path) -> None:
        jobs.append(job.max_rank)

    monkeypatch.setattr(referencing, "measured", noted)
    monkeypatch.setattr("server.assembly.pushing.base_folder_of", lambda *_: Path(__file__).parent)
    return jobs


def _push(place: Place, folder: Path) -> Pushed:
    return push(
        place, str(folder), NAME, base="tiny", base_folder=None, probes=None, key_file=None,
        progress=lambda done, total: None, note=lambda text: None, walled=False,
    )  # fmt: skip


def test_a_folder_takes_what_its_setting_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[int]
) -> None:
    base, contract = tiny_base()
    root = initialise(tmp_path / "work").root
    large = write_adapter(tmp_path / "large", base, rank=128)
    place = open_place(str(root))
    place.catalog.register_base(base, contract, actor="t")
    place.catalog.create_tenant(Tenant(id="bank_a", display_name="Bank A"), actor="t")
    with pytest.raises(AdapterRankTooHigh, match="rank 128, the highest allowed is 64"):
        _push(place, large)
    assert measured == [], "nobody measures for a minute what is refused then"
    monkeypatch.setenv("TENON_MAX_ADAPTER_RANK", "128")
    place = open_place(str(root))
    assert place.catalog.manifest(_push(place, large).version).lora.rank == 128
    assert measured == [128]


def test_a_registry_behind_a_url_has_a_bound_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[int]
) -> None:
    base, _ = tiny_base()
    large = write_adapter(tmp_path / "large", base, rank=128)
    for bound in (64, 128):
        with remote(tmp_path / f"registry-{bound}", max_rank=bound) as found:
            _, secret = found.world.catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="t")
            place = open_place(found.url, key=secret)
            try:
                if bound == 64:
                    with pytest.raises(AdapterRankTooHigh, match="highest allowed is 64"):
                        _push(place, large)
                else:
                    assert place.catalog.manifest(_push(place, large).version).lora.rank == 128
            finally:
                place.close()


def test_the_setting_ends_where_vllm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    field = RegistrySettings.model_json_schema()["properties"]["max_adapter_rank"]
    assert (field["default"], field["maximum"]) == (64, RANKS[-1])
