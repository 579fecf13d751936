"""The guard inside a real vLLM: it watches, it refuses, and it stops the engine before a wrong token."""

import asyncio
import shutil
from pathlib import Path

import pytest

from registry.digests import Digest
from registry.names import engine_name
from server.engines import guarded
from server.engines.errors import EngineLoadFailed
from tests.engine.conftest import write_lora
from tests.engine.guarding import Guarded, answer, ended, load, started, tokens, version

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("loras")
    made = [write_lora(root / f"lora-{seed}", seed=seed) for seed in (11, 12, 13)]
    for folder in made:
        (folder / "README.md").unlink(missing_ok=True)
    return made


def test_a_guarded_engine_serves_counts_and_ends_at_swapped_bytes(files: list[Path], tmp_path: Path) -> None:
    with started(tmp_path) as engine:
        first, second, third = (
            version(engine.cache, folder, adapter=f"adapter-{number}") for number, folder in enumerate(files)
        )
        asyncio.run(_serves_and_counts(engine, first, second))
        asyncio.run(_refuses_and_goes_on(engine, first))
        asyncio.run(_ends_at_swapped_bytes(engine, first, second, third))


async def _serves_and_counts(engine: Guarded, first: Digest, second: Digest) -> None:
    async with engine.client() as client:
        await load(client, engine.cache, first)
        await load(client, engine.cache, second)
    alone = [await answer(engine, engine_name(one), count=24, salt="alone") for one in (first, second)]
    assert alone[0] != alone[1]
    assert {len(tokens) for tokens in alone} == {24}
    beside = await asyncio.gather(
        *(answer(engine, engine_name(one), count=24, salt="beside") for one in (first, second))
    )
    assert beside == alone
    seen = guarded.prove(engine.reports, loads=2)
    assert (seen.workers, seen.loads, seen.rereads, seen.violations, seen.refusals) == (1, 2, 0, 0, 0)
    assert seen.steps >= 3 * 23
    assert seen.checked >= 4 * 23
    assert seen.audits >= 5
    assert 0 < seen.nanoseconds / seen.steps < 1_000_000


async def _refuses_and_goes_on(engine: Guarded, first: Digest) -> None:
    other = engine.cache / "other"
    shutil.copytree(engine.cache / first.hex, other)
    async with engine.client() as client:
        for name, folder in (("acme-summaries", other), (engine_name(Digest.of(b"x")), other)):
            with pytest.raises(EngineLoadFailed):
                await client.load(name, folder)
        status, _ = await client._call(
            "POST",
            "/v1/load_lora_adapter",
            {
                "lora_name": engine_name(first),
                "lora_path": str(engine.cache / first.hex),
                "load_inplace": True,
            },
        )
        assert status >= 400
    assert len(await answer(engine, engine_name(first), count=4, salt="after")) == 4
    assert guarded.totals(engine.reports).refusals == 3
    assert guarded.found(engine.reports) == ()


async def _ends_at_swapped_bytes(engine: Guarded, first: Digest, second: Digest, third: Digest) -> None:
    """vLLM's CPU cache takes three names here (two and the null adapter's) and drops the oldest (D3)."""
    fourth = version(engine.cache, engine.cache / third.hex, adapter="one-more")
    async with engine.client() as client:
        await load(client, engine.cache, third)
        await load(client, engine.cache, fourth)  # drops the second
    for one in (second, first, third, fourth):  # each is read again, and the last one drops the second again
        assert len(await answer(engine, engine_name(one), count=4, salt="again")) == 4
    assert guarded.totals(engine.reports).rereads == 4
    mine = engine.cache / second.hex
    shutil.rmtree(mine)
    shutil.copytree(engine.cache / first.hex, mine)
    assert await answer(engine, engine_name(second), count=4, salt="swapped") == []
    await ended(engine)
    (violation,) = guarded.found(engine.reports)
    assert (violation.kind, violation.names) == ("bytes", (engine_name(second),))
    assert guarded.totals(engine.reports).violations == 1


def test_without_the_fix_of_47724_the_first_stale_step_ends_the_engine(
    files: list[Path], tmp_path: Path
) -> None:
    with started(tmp_path, controls=["tenon_control_47724"], names=128) as engine:
        asyncio.run(_stops_at_a_stale_step(engine, files))


async def _stops_at_a_stale_step(engine: Guarded, files: list[Path]) -> None:
    mine = version(engine.cache, files[0], adapter="mine")
    async with engine.client() as client:
        await load(client, engine.cache, mine)
        right = await answer(engine, engine_name(mine), count=600, salt="alone")
        assert len(right) == 600

        async def bring(others: list[Digest]) -> None:
            for at in range(0, len(others), 4):
                await asyncio.gather(
                    *(load(client, engine.cache, one) for one in others[at : at + 4]), return_exceptions=True
                )

        for attempt in range(3):
            others = [version(engine.cache, files[1], adapter=f"other-{attempt}-{at}") for at in range(40)]
            shown: list[str] = []
            bringing = None
            async for token in tokens(engine, engine_name(mine), count=600, salt=f"beside-{attempt}"):
                shown.append(token)
                bringing = bringing or asyncio.create_task(bring(others))
            assert bringing is not None
            bringing.cancel()
            if len(shown) < 600:
                break  # Else nothing was loaded before it had said all, on a busy machine.
            assert shown == right
    async with asyncio.timeout(5):
        violation = await guarded.violated(engine.reports)
    assert violation.kind == "metadata"
    assert 0 < len(shown) < 600
    assert shown == right[: len(shown)]
    assert guarded.totals(engine.reports).violations == 1
    # A load that was under way never ends, and vLLM's API process waits for it: so the agent kills.
    engine.process.kill()
    assert await answer(engine, engine_name(mine), count=1, salt="after") == []
