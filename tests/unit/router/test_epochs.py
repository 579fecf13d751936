"""A conversation that began before a promotion keeps what it began with."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast
from unittest.mock import MagicMock

import pytest

from registry.digests import Digest
from registry.models import AliasState, Canary, Former, Route
from router.epochs import Epochs, parsed
from router.errors import DuplicateHeader, EpochInvalid
from router.headers import Headers
from router.resolution import Target, resolve
from router.resolution import choose as choose_route
from router.standing import look_again, renew
from router.surfaces.surface import Question
from router.tables import Live, compile_tables
from router.testing import Scene
from tests.unit.router.driving import House, Response
from tests.unit.router.test_resolution import BANK, NOW, headers

if TYPE_CHECKING:
    from router.asked import Asked


class World:
    """One alias of one tenant; both versions are served."""

    def __init__(self) -> None:
        self.scene = Scene()
        self.scene.engine()
        self.scene.serve("bank_a")
        self.old = self.scene.versions[0].version
        self.new = self.scene.version("bank_a")
        self.scene.aliases.pop()
        self.scene.attest(self.new)

    def alias(self, version: Digest, epoch: int, **more: object) -> None:
        state = self.scene.aliases[0]
        self.scene.aliases[0] = AliasState.model_validate(
            dict(state) | {"version": version, "epoch": epoch} | more
        )

    def live(self, began: int, unit: str = "conversation c") -> Live:
        tables = compile_tables(self.scene.snapshot())
        route = choose_route(BANK, "assistant", headers(), tables)
        resolve(route, tables, unit="key k", now=NOW)  # what another request left behind changes nothing
        return resolve(route, tables, unit=unit, now=NOW, began=began).live


def test_who_is_answered_by_the_former_version() -> None:
    world = World()
    world.alias(world.new, 5, former=Former(version=world.old, epoch=4))
    for began, version, epoch in (
        (0, world.new, 5),  # a new conversation
        (1, world.old, 4),
        (4, world.old, 4),
        (5, world.new, 5),
        (6, world.new, 5),  # of a router that is ahead of this one
    ):
        live = world.live(began)
        assert (live.version, live.epoch, live.canary) == (version, epoch, False), began


def test_who_began_before_the_former_version_is_not_answered_by_it() -> None:
    """A, then B, then A again (or C): a conversation of the first A never saw B."""
    world = World()
    for former in (Former(version=world.new, since=2, epoch=3), Former(version=world.new, since=3, epoch=3)):
        world.alias(world.old, 4, former=former)
        assert former.since is not None
        assert [world.live(began).version == world.new for began in range(6)] == [
            former.since <= began <= 3 for began in range(6)
        ]
    began_with_new = 2  # v1, v2, back to v1, v2 again
    world.alias(world.new, 4, former=Former(version=world.old, since=3, epoch=3))
    assert world.live(began_with_new).version == world.new


def test_an_epoch_is_kept_for_a_time_and_not_for_ever() -> None:
    """Who names an old epoch in every new conversation takes part in canaries again after that."""
    world = World()
    for until, version in (
        ("2026-01-01T00:00:00.000001Z", world.old),
        ("2026-01-01T00:00:00.000000Z", world.new),
        ("no time at all", world.new),
    ):
        world.alias(world.new, 2, former=Former(version=world.old, since=1, epoch=1, until=until))
        assert world.live(1).version == version, until


@dataclass
class Waiting:
    """As much of a request under way as ``renew`` looks at."""

    exchange: SimpleNamespace
    question: Question
    target: Target
    began: int
    surface: SimpleNamespace
    order: MagicMock
    repeats: int = 0

    def note_route(self, question: Question, route: Route) -> None:
        pass

    def note_live(self) -> None:
        pass


def test_an_epoch_of_one_alias_counts_for_no_other() -> None:
    """A rule was changed while a request waited: in what it leads to now, the conversation began nowhere."""
    world = World()
    former = Former(version=world.old, since=1, epoch=4)
    world.alias(world.new, 5, former=former)
    scene = world.scene
    scene.aliases.append(scene.aliases[0].model_copy(update={"alias": "next"}))
    sent = headers(("authorization", f"Bearer {scene.key('bank_a')}"))
    tables = compile_tables(scene.snapshot())
    target = resolve(choose_route(BANK, "assistant", sent, tables), tables, unit="c", now=NOW, began=1)
    assert target.live.version == world.old
    scene.routes[0] = scene.routes[0].model_copy(update={"alias": "next"})
    tables = compile_tables(scene.snapshot())
    question = Question(model="assistant")
    assert look_again(sent, question, target, tables, NOW, None, began=1).live.version == world.new
    waits = Waiting(
        SimpleNamespace(headers=sent), question, target, 1, SimpleNamespace(order=MagicMock()), MagicMock()
    )
    for _ in range(2):  # the second time the route is the same as before
        renew(cast("Asked", waits), tables, NOW, None, b"")
        assert waits.target.live.version == world.new


def test_after_a_roll_back_everybody_is_back() -> None:
    world = World()
    world.alias(world.old, 6)
    assert [world.live(began).version for began in (0, 4, 5, 6)] == [world.old] * 4


def test_what_nobody_serves_any_more_gives_way() -> None:
    world = World()
    world.alias(world.new, 2, former=Former(version=world.old, epoch=1))
    world.scene.versions[0] = world.scene.versions[0].model_copy(update={"revoked": True})
    assert world.live(1).version == world.new
    world.scene.versions[0] = world.scene.versions[0].model_copy(update={"revoked": False})
    assert world.live(1).version == world.old
    world.scene.slots = [slot for slot in world.scene.slots if slot.version != world.old]
    assert world.live(1).version == world.new


def test_a_foreign_former_version_is_none() -> None:
    world = World()
    foreign = world.scene.version("retail_b")
    world.scene.attest(foreign)
    world.alias(world.new, 2, former=Former(version=foreign, epoch=1))
    assert world.live(1).version == world.new


def test_a_conversation_in_a_canary_stays_in_it_when_it_becomes_stable() -> None:
    """Its epoch is 0, for it is no epoch's: else it would be sent from the canary to the former version."""
    world = World()
    world.alias(world.old, 2, canaries=(Canary(version=world.new, percent=99.99),))
    live = world.live(0)
    assert (live.version, live.canary) == (world.new, True)
    epochs = Epochs(lambda: 0.0)
    tables = compile_tables(world.scene.snapshot())
    route = choose_route(BANK, "assistant", headers(), tables)
    epochs.answered("conversation c", resolve(route, tables, unit="conversation c", now=NOW))
    assert epochs.began("bank_a", "desk", "live", "conversation c", Headers([])) == 0


def _target(world: World, tenant: str = "bank_a", epoch: int = 3) -> Target:
    tables = compile_tables(world.scene.snapshot())
    route = choose_route(BANK, "assistant", headers(), tables)
    target = resolve(route, tables, unit="u", now=NOW)
    live = target.live._replace(epoch=epoch)
    return target._replace(route=route.model_copy(update={"tenant": tenant}), live=live)


def test_what_is_remembered_and_for_how_long() -> None:
    now = 0.0
    epochs = Epochs(lambda: now, most=4, most_each=3, seconds=10)
    world = World()

    def began(unit: str, tenant: str = "bank_a", adapter: str = "desk", alias: str = "live") -> int:
        return epochs.began(tenant, adapter, alias, unit, Headers([]))

    epochs.answered("c1", _target(world))
    assert (began("c1"), began("c2")) == (3, 0)
    assert began("c1", "retail_b") == began("c1", adapter="other") == began("c1", alias="staging") == 0
    now = 9.9
    assert began("c1") == 3
    now = 10.0
    assert began("c1") == 0
    for number in range(2, 6):
        epochs.answered(f"c{number}", _target(world, epoch=number))
    assert [began(f"c{number}") for number in range(1, 6)] == [0, 0, 3, 4, 5]  # at most three of a tenant
    epochs.answered("c3", _target(world, epoch=7))
    epochs.answered("c6", _target(world, epoch=6))
    assert [began(f"c{number}") for number in range(3, 7)] == [7, 0, 5, 6]  # the oldest answer goes first
    assert len(epochs) == 3
    epochs.answered("d1", _target(world, "retail_b"))
    epochs.answered("d2", _target(world, "retail_b"))
    assert len(epochs) == 4
    assert began("c5") == 0  # the tenant that asked nothing for longest
    assert [began(unit, "retail_b") for unit in ("d1", "d2")] == [3, 3]


@pytest.mark.parametrize("text", ["", "x", "-1", "+1", "01", "1.0", "1e3", " 1", "1 ", "٣", "²", "9" * 16])
def test_an_epoch_is_parsed_strictly(text: str) -> None:
    with pytest.raises(EpochInvalid):
        parsed([text])
    with pytest.raises(DuplicateHeader):
        parsed(["1", "1"])
    assert [parsed([good]) for good in ("0", "1", "20", "9" * 15)] == [0, 1, 20, 999_999_999_999_999]


async def test_conversations_through_the_whole_router(tmp_path: Path) -> None:
    house = House(tmp_path)
    world = World()
    house.scene = world.scene
    secret = world.scene.key("bank_a")
    await house.app.start()

    async def ask(conversation: str | None, epoch: str | None = None, *, stream: bool = False) -> Response:
        sent = {} if conversation is None else {"x-conversation-id": conversation}
        sent |= {} if epoch is None else {"x-tenon-epoch": epoch}
        body = {"model": "assistant", "messages": [{"role": "user", "content": "pay"}], "stream": stream}
        response = await house.call(secret, body, headers=sent).done()
        assert response.status == 200 or epoch is not None, response.body
        return response

    def seen(response: Response) -> tuple[str | None, str | None]:
        return response.headers.get("x-tenon-version"), response.headers.get("x-tenon-epoch")

    await house.publish()
    assert seen(await ask("first")) == (world.old, "1")
    assert seen(await ask("second", stream=True)) == (world.old, "1")
    assert seen(await ask(None)) == (world.old, None)
    world.alias(world.new, 2, former=Former(version=world.old, epoch=1))
    await house.publish()
    assert seen(await ask("first")) == (world.old, "1")
    assert seen(await ask("first", stream=True)) == (world.old, "1")  # and so on
    assert seen(await ask("second")) == (world.old, "1")
    assert seen(await ask("third")) == (world.new, "2")
    assert seen(await ask(None)) == (world.new, None)
    assert seen(await ask(None, "1")) == (world.new, None)  # no conversation to keep anything for
    assert seen(await ask("of another router", "1")) == (world.old, "1")
    assert seen(await ask("first", "2")) == (world.new, "2")  # what the client says counts
    assert seen(await ask("first")) == (world.new, "2")
    for wrong in ("x", "01", "-1"):
        refused = await ask("second", wrong)
        assert (refused.status, refused.code, "x-tenon-epoch" in refused.headers) == (
            400,
            "epoch_invalid",
            False,
        )
    world.alias(world.old, 3, former=None)
    await house.publish()
    assert seen(await ask("third")) == seen(await ask("second")) == (world.old, "3")
    await house.app.stop()
    said = [
        (one.version, one.epoch) for one in house.records() if one.event == "outcome" and one.status == 200
    ]
    assert set(said) == {(world.old, 1), (world.new, 2), (world.old, 3)}
