"""``tenon mixup run --url`` of a Tenon that somebody runs already: with tenants' keys, and an operator's."""

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from registry.models import Role
from registry.names import AdapterName
from server.assembly import stack
from server.demo.build_base import SHIPPED_BASE
from server.mixup import afar
from server.mixup.ground import Plan
from tests.journeys.commands import tenon_here
from tests.journeys.conftest import TENANTS, Served, prepare, publish, start

PLAN = Plan(requests=120, prompts=4, long_tokens=20, starving=0.5, head_start=0.05, slots=2)


def key_files(served: Served, folder: Path) -> list[str]:
    """``--tenant`` options."""
    options = []
    for tenant in TENANTS:
        (folder / tenant).write_text(served.keys[tenant] + "\n")
        options += ["--tenant", f"{tenant}={folder / tenant}"]
    return options


def found(file: Path) -> dict[str, dict[str, Any]]:
    return {each["danger"]: each for each in json.loads(file.read_text())["findings"]}


def test_tenants_keys_are_enough_for_what_tenants_can_see(served: Served, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = tenon_here(
        *("mixup", "run", "--url", f"{served.url}/v1", *key_files(served, tmp_path)),
        *("--requests", "60", "--slots", "2", "--report", str(report)),
        *("--only", "Q1,D1,D2,D3,D4,D5,D6,D7,D8,D9,D10,D12,D14,D16,S1"),
    )
    assert done.code == 0, done.err
    seen = found(report)
    handled = {danger for danger, each in seen.items() if each["outcome"] == "handled"}
    assert handled == {"Q1", "D1", "D6", "D8", "D9", "D10", "D14"}
    assert not [each for each in seen.values() if each["outcome"] == "present"]
    assert seen["Q1"]["requests"] == 36
    assert seen["Q1"]["unclear"] == seen["Q1"]["failed"] == seen["Q1"]["refused"] == 0
    assert "--control" in seen["D2"]["why"]
    assert "disk" in seen["D3"]["why"]
    assert "--twins" in seen["S1"]["why"]
    assert not any(secret in done.out + done.err + report.read_text() for secret in served.keys.values())


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Served]:
    """Each tenant has a version that was live before."""
    world = prepare(tmp_path)
    for seed, tenant in enumerate(TENANTS[:2]):
        publish(world, tenant, tmp_path / "adapters" / f"{tenant}-2", seed=100 + seed)
    start(world)
    yield world
    stack.stop(world.workspace)


@pytest.mark.slow
def test_an_operator_moves_aliases_under_load_and_all_is_as_it_was(moved: Served, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    _, secret = moved.catalog.issue_key(None, role=Role.PLATFORM_ADMIN, actor="test")
    (tmp_path / "admin").write_text(secret)
    assert moved.running is not None
    versions = {tenant: len(moved.catalog.versions(AdapterName(tenant, "assistant"))) for tenant in TENANTS}
    done = tenon_here(
        *("mixup", "run", "--url", moved.url, *key_files(moved, tmp_path), "--requests", "200"),
        *("--control", moved.running.url("control"), "--admin-key-file", str(tmp_path / "admin")),
        *("--base", str(SHIPPED_BASE), "--only", "Q1,D2,D5,D7,D12,D16", "--report", str(report)),
    )
    assert done.code == 0, done.out + done.err
    seen = found(report)
    assert {danger for danger, each in seen.items() if each["outcome"] == "handled"} == {
        *("Q1", "D2", "D5", "D7", "D12", "D16")
    }
    assert seen["D2"]["figures"]["moves"] >= 2
    for tenant in TENANTS:
        name = AdapterName(tenant, "assistant")
        state = moved.catalog.alias(name)
        assert (state.version, state.canaries) == (moved.versions[tenant], ())
        assert len(moved.catalog.versions(name)) == versions[tenant]
    assert secret not in done.out + done.err + report.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tenant", "bank_a"], "NAME=KEY_FILE"),
        (["--tenant", "bank_a={key}", "--tenant", "bank_a={key}"], "each name once"),
        (["--tenant", "bank_a={key}", "--twins", "bank_a,nobody"], "--twins takes two"),
        (["--tenant", "bank_a={key}", "--admin-key-file", "{key}"], "goes with --control"),
        (["--tenant", "bank_a={key}", "--key-file", "{key}"], "brings its own key"),
        (["--tenant", "bank_a={key}"], "takes two"),
        (
            ["--tenant", "bank_a={wrong}", "--tenant", "retail_b={key}"],
            "does not answer to the key of 'bank_a'",
        ),
        (["--control", "somewhere"], "go with --tenant"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    served: Served, tmp_path: Path, options: list[str], said: str
) -> None:
    (tmp_path / "key").write_text(served.keys["bank_a"])
    (tmp_path / "wrong").write_text("tn_bank_a_" + "0" * 43)
    given = [each.format(key=tmp_path / "key", wrong=tmp_path / "wrong") for each in options]
    done = tenon_here("mixup", "run", "--url", served.url, *given)
    assert done.code != 0
    assert said in done.err


@contextlib.asynccontextmanager
async def mixing(served: Served, *, every: int) -> AsyncIterator[str]:
    """A gateway that now and then asks with another tenant's key, and says what the right one would say."""
    keys = list(served.keys.values())
    asked = 0

    async def passed_on(request: web.Request) -> web.Response:
        nonlocal asked
        secret = request.headers.get("Authorization", "").removeprefix("Bearer ")
        other = secret
        if request.path == "/v1/completions" and secret in keys:
            asked += 1
            other = keys[(keys.index(secret) + (asked % every == 0)) % len(keys)]
        headers = {"Authorization": f"Bearer {other}", "Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, served.url + request.path, data=await request.read(), headers=headers
            ) as answer,
        ):
            said = {"Content-Type": answer.headers["Content-Type"]}
            if secret in keys and answer.status == 200:
                tenant = TENANTS[keys.index(secret)]
                said["X-Tenon-Version"] = str(served.versions[tenant])
            return web.Response(status=answer.status, body=await answer.read(), headers=said)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", passed_on)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_gateway_that_lies_about_who_answered_is_found(served: Served) -> None:
    keys = {tenant: served.keys[tenant] for tenant in TENANTS}
    only = Plan(requests=100, prompts=4, only=frozenset({"Q1"}))
    async with mixing(served, every=1000) as url:
        report = await afar.of_tenon(afar.Door(url=url, keys=keys), only, say=lambda _: None)
        assert report.outcome("Q1") == "handled", report.rows()
    async with mixing(served, every=23) as url:
        report = await afar.of_tenon(afar.Door(url=url, keys=keys), only, say=lambda _: None)
    assert report.outcome("Q1") == "present"
    assert report.mixups >= 1
