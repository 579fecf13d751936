"""The log behind a URL gives what the log here gives, and an export travels in pieces."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.errors import TenantNotFound
from registry.log.export import read_lines, verify_export
from registry.models import Role
from tests.support.registries import signer
from tests.support.remote import Remote, remote

KEYS = {signer("log").public.id: signer("log").public}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Remote]:
    with remote(tmp_path / "served") as made:
        yield made


def test_the_same_answers_as_here(served: Remote) -> None:
    served.world.promoted()
    here, there = served.world.catalog, served.catalog
    size = here.position().size
    assert there.entries(0, size) == here.entries(0, size)
    assert there.entries(2, 3) == here.entries(2, 3)
    assert there.entries(tenant="bank_a") == here.entries(tenant="bank_a")
    assert (there.head(), there.head(4)) == (here.head(), here.head(4))
    assert there.heads(after=2, limit=4) == here.heads(after=2, limit=4)
    assert there.inclusion(3) == here.inclusion(3)
    assert there.consistency(3, 6) == here.consistency(3, 6)
    assert there.key_history() == here.key_history()
    found = verify_export(read_lines(there.export_log("bank_a")), KEYS)
    assert (found.faults, found.complete) == ((), True)


def test_another_tenants_export_is_not_there(served: Remote) -> None:
    with served.as_("bank_a", Role.TENANT_ADMIN) as own:
        assert verify_export(read_lines(own.export_log("bank_a")), KEYS).faults == ()
        for tenant in ("retail_b", "nobody"):
            with pytest.raises(TenantNotFound):
                list(own.export_log(tenant))
