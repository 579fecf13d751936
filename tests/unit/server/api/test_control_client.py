"""What routers and engine agents hold in their hands, against the real control plane over a socket."""

import io
import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from registry.blobs.memory import InMemoryBlobs
from registry.digests import Digest
from registry.errors import TenonError
from registry.models import Withdrawal
from server.api.app import create_app
from server.api.client import ControlClient, _refusal
from server.engines.errors import refusal
from server.errors import ControlBusy, ControlRefused, ControlUnreachable
from tests.support.control import SERVICE_TOKEN, ControlWorld, control_world
from tests.support.registries import BOOT, attested, record_head, withdrawn
from tests.support.remote import serving


async def test_an_engine_finds_and_reports_all_it_needs(tmp_path: Path) -> None:
    with control_world(tmp_path) as bench, serving(create_app(bench.control)) as url:
        version = bench.world.promoted()
        async with ControlClient(url, SERVICE_TOKEN) as client:
            for ref in (bench.world.base, "tiny"):
                assert (await client.base(ref)).identity() == bench.world.base
            manifest = await client.manifest(version)
            assert manifest == bench.world.catalog.manifest(version)
            for file in (*manifest.files, manifest.contract):
                assert Digest.of(await client.blob(file.digest)) == file.digest
            await client.announce("engine-0", bench.world.announced())
            await client.attest(bench.world.attestation(version))
            await client.submit(record_head(0))
        assert [slot.version for slot in bench.world.catalog.slots()] == [version]
        _names_who_reported(bench)


def _names_who_reported(bench: ControlWorld) -> None:
    size = bench.world.catalog.position().size
    actors = [entry.actor for entry in bench.world.catalog.entries(size - 3, 3)]
    assert actors == ["engine:engine-0", "engine", "router"]


async def test_an_engine_withdraws_what_others_serve(tmp_path: Path) -> None:
    with control_world(tmp_path) as bench, serving(create_app(bench.control)) as url:
        world = bench.world
        version = world.promoted()
        said = Withdrawal(engine="engine-0", boot=BOOT, versions=(version,))
        async with ControlClient(url, SERVICE_TOKEN) as client:
            await client.announce("engine-0", world.announced())
            await client.attest(world.attestation(version))
            with pytest.raises(ControlRefused) as refused:
                await client.withdraw("engine-0", withdrawn(said))
            assert refusal(refused.value) == "engine_needed"
            await client.announce("engine-1", world.announced("engine-1"))
            await client.attest(attested(world.finding(version, engine="engine-1")))
            await client.withdraw("engine-0", withdrawn(said))
            assert world.catalog.entries(world.catalog.log_size() - 1)[0].actor == "engine:engine-0"
            with pytest.raises(ControlRefused) as refused:
                await client.withdraw(
                    "engine-1",
                    withdrawn(said.model_copy(update={"engine": "engine-1", "boot": "other-boot"})),
                )
            assert refusal(refused.value) == "engine_replaced"
            await client.announce("engine-1", world.announced("engine-1", up=False))
            with pytest.raises(ControlRefused) as refused:
                await client.attest(attested(world.finding(version, engine="engine-1")))
            assert refusal(refused.value) == "engine_down"
            await client.announce("engine-1", world.announced("engine-1"))
            later = {"observed_at": "2026-01-01T00:01:00.000000Z"}
            await client.attest(attested(world.finding(version, engine="engine-1").model_copy(update=later)))
        assert [slot.engine for slot in world.catalog.slots()] == ["engine-1"]
        # The path names the engine that speaks.
        with TestClient(create_app(bench.control)) as http:
            answer = http.post(
                "/api/v1/engines/engine-1/withdrawals",
                content=withdrawn(said).canonical(),
                headers={"Authorization": f"Bearer {SERVICE_TOKEN}", "Content-Type": "application/json"},
            )
        assert answer.status_code == 400, answer.text


async def test_long_damaged_bytes_are_told_from_a_control_plane_that_is_away(tmp_path: Path) -> None:
    """Both break the connection; but these were sent, and would be sent again."""
    data = bytes(9 << 20)
    digest = Digest.of(data)
    with control_world(tmp_path) as bench:
        bench.control.uploads.whole("bank_a", digest, io.BytesIO(data))
        blobs = bench.control.blobs
        assert isinstance(blobs, InMemoryBlobs)
        with serving(create_app(bench.control)) as url:
            async with ControlClient(url, SERVICE_TOKEN) as client:
                assert await client.blob(digest) == data
                blobs._data[digest] = data[:-1] + b"x"
                with pytest.raises(ControlUnreachable, match="broke off") as broken:
                    await client.blob(digest)
        async with ControlClient(url, SERVICE_TOKEN) as client:
            with pytest.raises(ControlUnreachable, match="no answer") as away:
                await client.blob(digest)
    assert "begun" in broken.value.facts
    assert "begun" not in away.value.facts


async def test_another_token_is_refused(tmp_path: Path) -> None:
    with control_world(tmp_path) as bench, serving(create_app(bench.control)) as url:
        async with ControlClient(url, SERVICE_TOKEN[:-1] + "x") as client:
            with pytest.raises(ControlRefused):
                await client.base("tiny")


@pytest.mark.parametrize(
    ("status", "problem", "raised", "advice"),
    [
        (503, {"title": "busy", "code": "store_unavailable", "hint": "wait"}, ControlBusy, "log"),
        (
            409,
            {"title": "no", "code": "records_missing", "hint": "ship them in order"},
            ControlRefused,
            "order",
        ),
        (401, {"title": "no", "code": "invalid_token", "hint": "x"}, ControlRefused, "service token"),
    ],
)
def test_a_refusal_says_what_to_do_about_it(
    status: int, problem: dict[str, str], raised: type[TenonError], advice: str
) -> None:
    refusal = _refusal("GET /api/v1/x", status, json.dumps(problem).encode())
    assert type(refusal) is raised
    assert advice in refusal.advice
    assert refusal.facts["problem"] == problem["code"]
    assert refusal.status == (503 if raised is ControlBusy else 502)
