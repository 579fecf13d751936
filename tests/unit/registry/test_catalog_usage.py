import threading
from functools import partial

import pytest

from registry.catalog.errors import PeriodInvalid, UsageInvalid, UsageRegressed
from registry.digests import Digest
from registry.errors import InvalidInput, TenantNotFound
from registry.names import AdapterName
from registry.usage import By, UsageBatch, UsageLine
from tests.support.registries import NAME, World

DAY = "2026-01-31"


def _line(version: Digest, requests: int = 1, day: str = DAY, name: AdapterName = NAME) -> UsageLine:
    return UsageLine(
        tenant=name.tenant,
        adapter=name.adapter,
        version=version,
        day=day,
        requests=requests,
        prompt_tokens=requests * 10,
        completion_tokens=requests * 100,
    )


def _batch(seq: int, *lines: UsageLine, writer: str = "router-0") -> UsageBatch:
    return UsageBatch(writer=writer, seq=seq, lines=lines)


def _used(world: World, tenant: str = "bank_a") -> tuple[UsageLine, ...]:
    return world.catalog.usage(tenant, first_day="2026-01-01", last_day="2026-12-31")


def test_a_batch_is_counted_once(anywhere: World) -> None:
    version = anywhere.push()
    size = anywhere.catalog.snapshot().size
    first = _batch(0, _line(version, 1), _line(version, 2), _line(version, 4, "2026-02-01"))
    assert anywhere.catalog.count_usage(first)
    assert not anywhere.catalog.count_usage(first)
    assert anywhere.catalog.count_usage(_batch(1, _line(version, 8)))
    assert anywhere.catalog.count_usage(_batch(0, _line(version, 16), writer="router-1"))
    assert anywhere.catalog.count_usage(_batch(7))
    assert _used(anywhere) == (_line(version, 27), _line(version, 4, "2026-02-01"))
    assert _used(anywhere, "retail_b") == ()
    assert anywhere.catalog.usage("bank_a", first_day="2026-02-01", last_day="2026-02-01") == (
        _line(version, 4, "2026-02-01"),
    )
    assert anywhere.catalog.snapshot().size == size
    assert anywhere.catalog.verify() == []


def test_sums_come_in_pages(anywhere: World) -> None:
    versions = {name: anywhere.push(AdapterName("bank_a", name), seed=seed) for seed, name in enumerate("ab")}
    lines = [
        _line(version, seed + 1, f"2026-01-{day:02}", AdapterName("bank_a", name))
        for seed, (name, version) in enumerate(versions.items())
        for day in (1, 2, 3)
    ]
    anywhere.catalog.count_usage(_batch(0, *lines))
    ask = partial(anywhere.catalog.usage_sums, "bank_a", first_day="2026-01-02", last_day="2026-01-31")
    listed: tuple[tuple[By | None, list[tuple[str | None, str | None, int]]], ...] = (
        (
            None,
            [("2026-01-02", "a", 1), ("2026-01-02", "b", 2), ("2026-01-03", "a", 1), ("2026-01-03", "b", 2)],
        ),
        ("day", [("2026-01-02", None, 3), ("2026-01-03", None, 3)]),
        ("version", [(None, "a", 2), (None, "b", 4)]),
    )
    for by, expected in listed:
        whole = ask(by=by)
        assert [(each.day, each.adapter, each.requests) for each in whole] == expected
        assert [each.version for each in whole] == [
            versions[each.adapter] if each.adapter else None for each in whole
        ]
        assert all(each.completion_tokens == 100 * each.requests for each in whole)
        for place, each in enumerate(whole):
            assert ask(by=by, after=each.key) == whole[place + 1 :]
            assert ask(by=by, after=each.key, limit=1) == whole[place + 1 : place + 2]
    assert ask(by="day", after="2026-01-02x", limit=5) == ask(by="day")[1:]
    with pytest.raises(InvalidInput, match="the key of no sum"):
        ask(by="day", after="2026-01-02 a")
    with pytest.raises(InvalidInput, match="the key of no sum"):
        ask(by="version", after="a")


def test_a_batch_that_does_not_follow_the_newest_is_refused(world: World) -> None:
    version = world.push()

    def follow(after: int, seq: int) -> UsageBatch:
        return UsageBatch(writer="router-0", seq=seq, after=after, lines=(_line(version),))

    for after in (0, 7):
        with pytest.raises(UsageRegressed):
            world.catalog.count_usage(follow(after, 9))
    assert world.catalog.usage_counted("router-0").seq == -1
    assert world.catalog.count_usage(follow(-1, 4))
    assert not world.catalog.count_usage(follow(-1, 4))
    assert world.catalog.usage_counted("router-0").seq == 4
    for after in (-1, 3, 5):  # the first: as if it had been asked before the batch arrived late
        with pytest.raises(UsageRegressed):
            world.catalog.count_usage(follow(after, 9))
    assert world.catalog.count_usage(follow(4, 9))
    assert _used(world) == (_line(version, 2),)


def test_batches_of_before_keep_their_digest() -> None:
    digest = "sha256:305c41a98928fcdbe52c903a5fa5006676b29eb160357b3bc84f6fcc5e35eb43"
    assert _batch(7).identity() == digest


def test_a_writer_that_lost_its_place_is_told(world: World) -> None:
    version = world.push()
    for seq in (3, 4):
        world.catalog.count_usage(_batch(seq, _line(version)))
    for batch in (_batch(3, _line(version)), _batch(4, _line(version, 2)), _batch(0)):
        with pytest.raises(UsageRegressed):
            world.catalog.count_usage(batch)
    assert _used(world) == (_line(version, 2),)


def test_nothing_of_a_batch_with_a_fault_is_counted(anywhere: World) -> None:
    version, foreign = anywhere.push(), AdapterName("retail_b", "assistant")
    good = _line(version)
    for wrong in (
        _line(Digest.of(b"x")),
        _line(version, name=foreign),
        _line(version, name=AdapterName("bank_a", "writer")),
        _line(version, day="2026-02-30"),
    ):
        with pytest.raises(UsageInvalid, match="line 1"):
            anywhere.catalog.count_usage(_batch(0, good, wrong))
    assert _used(anywhere) == ()
    assert anywhere.catalog.count_usage(_batch(0, good))


def test_sums_go_beyond_32_bits(anywhere: World) -> None:
    version = anywhere.push()
    for seq in range(3):
        anywhere.catalog.count_usage(_batch(seq, _line(version, 2**40)))
    assert _used(anywhere)[0].completion_tokens == 3 * 100 * 2**40


def test_a_batch_of_ten_thousand_lines(anywhere: World) -> None:
    versions = [anywhere.push(seed=seed) for seed in (1, 2)]
    days = [f"2026-{month:02}-{day:02}" for month in range(1, 13) for day in range(1, 29)]
    lines = tuple(_line(version, 1, day) for day in days for version in versions)
    many = (lines * (10_000 // len(lines) + 1))[:10_000]
    assert anywhere.catalog.count_usage(_batch(0, *many))
    assert sum(line.requests for line in _used(anywhere)) == 10_000
    assert len(_used(anywhere)) == len(lines)


def test_the_same_batch_at_once(anywhere: World) -> None:
    version = anywhere.push()
    start, counted = threading.Barrier(4), []

    def count() -> None:
        start.wait(10)
        counted.append(anywhere.catalog.count_usage(_batch(0, _line(version))))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counted) == [False, False, False, True]
    assert _used(anywhere) == (_line(version),)


def test_whose_usage_and_when(world: World) -> None:
    with pytest.raises(TenantNotFound):
        _used(world, "nobody")
    for first, last in (("2026-1-1", DAY), (DAY, "20260131"), (DAY, "2026-02-30")):
        with pytest.raises(PeriodInvalid):
            world.catalog.usage("bank_a", first_day=first, last_day=last)
