import pytest

from registry.catalog.errors import ContractInvalid
from registry.digests import Digest
from registry.errors import BaseNotFound
from tests.support.adapters import tiny_base
from tests.support.registries import World


def test_a_name_means_the_base_registered_last(world: World) -> None:
    first, contract = tiny_base()
    second, newer = tiny_base(revision="r2")
    digest = world.catalog.register_base(second, newer, actor="test")
    assert world.catalog.base("tiny") == (digest, second, newer)
    assert world.catalog.base(world.base) == (world.base, first, contract)
    assert world.catalog.register_base(first, contract, actor="test") == world.base
    assert world.catalog.base("tiny")[0] == world.base
    assert set(world.catalog.snapshot().bases) == {world.base, digest}
    assert world.catalog.verify() == []


def test_registering_again_changes_nothing(world: World) -> None:
    size = world.catalog.snapshot().size
    assert world.catalog.register_base(*tiny_base(), actor="test") == world.base
    assert world.catalog.snapshot().size == size


def test_a_contract_belongs_to_its_base_and_can_be_checked(world: World) -> None:
    base, contract = tiny_base(revision="r3")
    for changes in (
        {"base": world.base},
        {"tokenizer": Digest.of(b"x")},
        {"chat_template": Digest.of(b"x")},
        {"golden": ()},
    ):
        with pytest.raises(ContractInvalid):
            world.catalog.register_base(base, contract.model_copy(update=changes), actor="test")
    with pytest.raises(BaseNotFound):
        world.catalog.base(base.identity())


@pytest.mark.parametrize("ref", ["nobody", "sha256:" + "0" * 64, "sha256:xyz", ""])
def test_unknown_bases(world: World, ref: str) -> None:
    with pytest.raises(BaseNotFound):
        world.catalog.base(ref)
