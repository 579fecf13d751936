"""A tenant's version in the weights of an engine of its own: made beside the engine that serves, proven by
the version's own fingerprint, and never at the price of what is served now."""

import asyncio
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from registry.digests import Digest
from registry.models import Isolation, Level
from registry.names import engine_name
from server.engines.cadence import Cadence
from server.testing.fake_model import signature, weights_of
from tests.support.adapters import write_adapter
from tests.unit.server.engines.bench import BASE, SLOW, Bench, cmdline, group_of

MERGED = Isolation(level=Level.MERGED, engines=("engine-0",))
_ONCE_ALLOWED = """
import sys, time
from pathlib import Path
from server.testing.fake_merge import main
base, adapter, out = sys.argv[1:]
while not (Path(base).parent / "allowed").exists():
    time.sleep(0.01)
sys.exit(main([base, adapter, out]))
"""
_ANOTHER = """
import sys
from pathlib import Path
from server.testing.fake_merge import main
base, adapter, out = sys.argv[1:]
sys.exit(main([base, str(Path(base).parent / "another"), out]))
"""
_COUNTED = """
import sys
from pathlib import Path
from server.testing.fake_merge import main
base, adapter, out = sys.argv[1:]
folder = Path(base).parent
with (folder / "attempts").open("a") as stream:
    stream.write("x")
if not (folder / "allowed").exists():
    Path(out).mkdir()
    (Path(out) / "half").write_bytes(b"half")
    print("no memory left")
    sys.exit(3)
sys.exit(main([base, adapter, out]))
"""


def program(text: str) -> tuple[str, ...]:
    return sys.executable, "-c", text


def bench_of(tmp_path: Path, *, cadence: Cadence = SLOW, **spec: Any) -> Bench:
    base = tmp_path / "base"
    base.mkdir(parents=True, exist_ok=True)
    (base / "config.json").write_bytes(b"{}")
    return Bench(tmp_path, cadence=cadence, model=str(base), **spec)


async def until_merged(bench: Bench, version: Digest) -> None:
    await bench.until(lambda state: state.merged == version and version in state.ready and state.is_ready)


async def serves_merged(bench: Bench, version: Digest, name: str) -> None:
    await until_merged(bench, version)
    assert await bench.said({"model": engine_name(version)}) == {signature(bench.weights(name))}


async def test_an_engine_of_a_merged_tenant_serves_its_version_without_any_adapter(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    version = bench.adapter("bank_a", seed=1)
    other = bench.adapter("retail_b", seed=2)
    bench.control.isolate("bank_a", MERGED)
    async with bench.running():
        await serves_merged(bench, version, "bank_a")
        assert "loading" not in bench.kinds()[bench.kinds().index("merging") :]
        assert any("--enable-lora" not in cmdline(pid) for pid in group_of(bench))
        announced = bench.control.announced[-1]
        assert (announced.merged, announced.names, announced.max_loras) == (version, 1, 1)
        found = bench.control.attestations[-1]
        fingerprint = (await bench.control.manifest(version)).fingerprint
        assert fingerprint is not None
        assert (found.version, found.passed, found.fingerprint) == (version, True, fingerprint.digest)
        assert found.boot == announced.boot
        assert bench.control.slots == {version}, "nobody else's version is on it"
        assert other not in bench.agent.state.ready


async def test_it_serves_on_as_it_is_while_the_merge_is_made(tmp_path: Path) -> None:
    """And while it starts again, another engine serves: at no time is the version nowhere."""
    first = bench_of(tmp_path / "one", merge=program(_ONCE_ALLOWED))
    second = bench_of(tmp_path / "two", engine="engine-1")
    second.share(first)
    version = first.adapter("bank_a", seed=1)
    nowhere: list[str] = []
    first.control.watch(lambda: nowhere.extend(["gap"] if version not in first.control.slots else []))
    async with AsyncExitStack() as stack:
        for bench in (first, second):
            await stack.enter_async_context(bench.running())
        for bench in (first, second):
            await bench.until(lambda state: version in state.ready)
        nowhere.clear()
        first.control.isolate("bank_a", MERGED)
        await first.until(lambda state: "merging" in first.kinds())
        state = await first.until(lambda state: state.waits_for == "the merge" and state.is_ready)
        assert (state.up, state.merged) == (True, None)
        assert await first.said({"model": engine_name(version)}) == {signature(first.weights("bank_a"))}
        (tmp_path / "one" / "allowed").touch()
        await serves_merged(first, version, "bank_a")
        assert first.agent.state.waits_for == ""
        first.control.isolate("bank_a", Isolation())
        await first.until(lambda state: state.up and state.merged is None and version in state.ready)
        assert nowhere == []
    assert first.kinds().count("recycling") == 2
    assert first.kinds().count("failed") == 0


async def test_an_engine_that_is_given_away_holds_only_its_tenants_after_that(tmp_path: Path) -> None:
    """It starts again without what others had in its memory, and nobody is without an engine meanwhile."""
    first = bench_of(tmp_path / "one")
    second = bench_of(tmp_path / "two", engine="engine-1")
    second.share(first)
    mine, other = first.adapter("bank_a", seed=1), first.adapter("retail_b", seed=2)
    nowhere: list[Digest] = []
    first.control.watch(lambda: nowhere.extend({mine, other} - first.control.slots))
    async with AsyncExitStack() as stack:
        for bench in (first, second):
            await stack.enter_async_context(bench.running())
        for bench in (first, second):
            await bench.until(lambda state: {mine, other} <= set(state.ready))
        nowhere.clear()
        boot = first.agent.state.boot
        assert boot is not None
        first.control.isolate(
            "bank_a", Isolation(level=Level.DEDICATED, engines=("engine-0",), unclean=(boot,))
        )
        state = await first.until(lambda state: state.boot not in (None, boot) and mine in state.ready)
        assert (set(state.ready), state.retired) == ({mine}, ())
        assert await first.said({"model": engine_name(mine)}) == {signature(first.weights("bank_a"))}
        await second.until(lambda state: set(state.ready) == {other})
        assert nowhere == []
    assert first.kinds().count("recycling") == 1
    assert second.kinds().count("recycling") == 0


async def test_a_merge_is_made_once_and_verified_before_each_use(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    async def made() -> int:
        """How many merges it takes an agent that has just started."""
        bench = bench_of(tmp_path)
        version = bench.adapter("bank_a", seed=1)
        folder = await bench.agent._merges.folder(version, BASE)
        assert weights_of(folder) == bench.weights("bank_a")
        assert not list(cache.glob(".draft-*"))
        return bench.kinds().count("merging")

    assert await made() == 1
    assert await made() == 0
    (folder,), (listing,) = cache.glob("*.merged"), cache.glob("*.merged.json")
    for path, data in (
        (folder / "adapter_model.safetensors", b"somebody else's weights"),
        (folder / "extra", b"one file more"),
        (listing, b"{}"),
    ):
        folder.chmod(0o755)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        assert await made() == 1, path
        assert await made() == 0
    folder.chmod(0o755)
    folder.rename(tmp_path / "away")
    folder.symlink_to(tmp_path / "away")
    assert await made() == 1


async def test_a_merge_that_fails_leaves_the_engine_as_it_was_and_says_why(tmp_path: Path) -> None:
    cadence = replace(SLOW, merge_again=0.5)
    bench = bench_of(tmp_path, cadence=cadence, merge=program(_COUNTED))
    version = bench.adapter("bank_a", seed=1)
    async with bench.running():
        boot = (await bench.until(lambda state: version in state.ready)).boot
        bench.control.isolate("bank_a", MERGED)
        state = await bench.until(lambda state: "cannot be merged" in state.waits_for)
        assert "status 3" in state.waits_for
        assert (state.up, state.merged, state.boot) == (True, None, boot)
        assert await bench.said({"model": engine_name(version)}) == {signature(bench.weights("bank_a"))}
        attempts = tmp_path / "attempts"
        tried = len(attempts.read_text())
        for seed in range(2, 6):  # news, again and again, is no reason to try sooner
            bench.adapter("retail_b", seed=seed)
            await bench.until(lambda state: state.settled)
        assert len(attempts.read_text()) <= tried + 1
        assert not list((tmp_path / "cache").glob("*.merged*"))
        assert not list((tmp_path / "cache").glob(".draft-*/*"))
        (tmp_path / "allowed").touch()
        await serves_merged(bench, version, "bank_a")
    assert "no memory left" in (tmp_path / "merge.log").read_text()


async def test_a_start_whose_merge_fails_serves_what_it_can(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, merge=program(_COUNTED))
    version = bench.adapter("bank_a", seed=1)
    bench.control.isolate("bank_a", MERGED)
    async with bench.running():
        await bench.until(lambda state: "cannot be merged" in state.waits_for and version in state.ready)
        assert len((tmp_path / "attempts").read_text()) == 1


async def test_another_merge_than_the_versions_is_never_served(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, merge=program(_ANOTHER))
    write_adapter(tmp_path / "another", BASE, seed=9)
    version = bench.adapter("bank_a", seed=1)
    bench.control.isolate("bank_a", MERGED)
    async with bench.running():
        state = await bench.until(
            lambda state: state.merged == version and version in state.not_ready and state.settled
        )
        assert "attestation_failed" in state.not_ready[version].text
        assert not state.is_ready
        await asyncio.sleep(0.05)
        assert bench.control.slots == set()
        assert not bench.control.attestations[-1].passed


async def test_only_two_merges_are_kept(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    bench.control.isolate("bank_a", MERGED)
    versions = [bench.adapter("bank_a", seed=seed) for seed in (1, 2, 3)]
    async with bench.running():
        for version in versions:
            bench.control.point(version)
            await until_merged(bench, version)
        kept = {path.name.partition(".")[0] for path in (tmp_path / "cache").glob("*.merged")}
        assert kept == {version.hex for version in versions[1:]}
        # Going back is a start without a merge.
        merges = bench.kinds().count("merging")
        bench.control.point(versions[1])
        await until_merged(bench, versions[1])
        assert bench.kinds().count("merging") == merges
