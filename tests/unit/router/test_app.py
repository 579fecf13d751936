"""The small routes, readiness, following the feed, starting and stopping."""

import os
from pathlib import Path
from typing import Any

import pytest

from registry.digests import Digest
from registry.errors import RecordCorrupt
from registry.feed import Delta, News, Position
from registry.models import Role
from registry.signing.keys import Signer
from router.app import create_app
from router.limits import Cadence, Freshness, Limits, Timeouts
from router.testing import FakeFeed, FakeHeads
from tests.unit.router.driving import SALT, Call, House, until


async def test_models_are_those_of_the_tenant(house: House, bank: str) -> None:
    retail = house.scene.serve("retail_b", model="cashier")
    house.scene.route("bank_a", next(iter(house.scene.policies)), when={"x-policy-version": "v2"})
    trainer = house.scene.key("retail_b", Role.TRAINER)
    await house.publish()
    listed = [{"id": "assistant", "object": "model", "created": 0, "owned_by": "bank_a"}]
    assert (await house.get("/v1/models", bank)).json() == {"object": "list", "data": listed}
    for secret in (retail, trainer):
        assert [m["id"] for m in (await house.get("/v1/models", secret)).json()["data"]] == ["cashier"]
    assert (await house.get("/v1/models")).code == "missing_api_key"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"), ("POST", "/v1/complete"), ("POST", "/v1/load_lora_adapter"),
        ("POST", "/invocations"), ("POST", "/tokenize"), ("DELETE", "/v1/models"), ("GET", "/"),
        ("POST", "/v1/chat/completions/"), ("GET", "/v1/model/assistant"), ("POST", "/V1/chat/completions"),
        ("GET", "/v1/receipt"), ("OPTIONS", "/healthz"),
    ],
)  # fmt: skip
async def test_everything_else_is_404(house: House, bank: str, method: str, path: str) -> None:
    response = await house.call(bank, [b""], method=method, path=path).done()
    assert (response.status, response.code) == (404, "path_not_found")
    assert not house.engines.asked


async def test_ready_says_why_not(house: House) -> None:
    async def reasons() -> list[str]:
        found = await house.get("/readyz")
        assert found.status == (503 if found.json()["reasons"] else 200)
        listed: list[str] = found.json()["reasons"]
        return listed

    assert await reasons() == ["no state from the registry yet"]
    assert (await house.get("/healthz")).status == 200
    await house.publish()
    assert await reasons() == ["no engine is attested for any version"]
    house.scene.serve("bank_a")
    await house.publish()
    assert await reasons() == []
    house.now += 301
    assert await reasons() == ["the registry was last heard 301 s ago"]


async def test_a_registry_that_is_silent_for_too_long_is_no_longer_trusted(tmp_path: Path) -> None:
    """For minutes the last state serves, and routers stay in their load balancer; beyond the bound nothing
    does, until the registry is heard."""
    house = House(tmp_path, freshness=Freshness())
    house.scene.engine()
    bank = house.scene.serve("bank_a")
    await house.app.start()
    await house.publish()
    house.feed.fail(OSError("gone"))
    await until(lambda: house.feed.failed > 0)
    house.now += 600
    assert (await house.ask(bank)).status == 200
    assert (await house.get("/readyz")).status == 200
    house.now += 0.5
    assert (await house.ask(bank)).code == "router_not_ready"
    assert (await house.get("/readyz")).json()["reasons"] == ["the registry was last heard 600 s ago"]
    assert b"tenon_feed_age_seconds 600.5" in (await house.get("/metrics")).body
    house.feed.fail(None)
    await house.publish()
    assert (await house.ask(bank)).status == 200
    assert b"tenon_feed_lag_entries 0.0" in (await house.get("/metrics")).body
    await house.app.stop()


async def test_tables_that_cannot_be_brought_up_to_date_show_as_lag(house: House, bank: str) -> None:
    """The registry is heard, and what it says does not follow: the last state serves until it is too old."""

    class Confused:
        async def read(self, known: Position | None, wait: float) -> News | None:
            assert known is not None
            root = Digest.of(b"elsewhere")
            return Delta(after=known.size, follows=root, size=known.size + 7, root=root)

    house.app.feed._source = Confused()
    house.feed.publish(house.scene.snapshot())  # ends the read under way
    await until(lambda: house.app.feed.lag == 7)
    assert (await house.ask(bank)).status == 200
    assert b"tenon_feed_lag_entries 7.0" in (await house.get("/metrics")).body
    house.now += 301
    assert (await house.ask(bank)).code == "router_not_ready"


async def test_a_failing_registry_leaves_the_last_state_in_force(house: House, bank: str) -> None:
    house.feed.fail(OSError("gone"))
    assert (await house.ask(bank)).status == 200
    house.feed.fail(None)
    house.scene.keys.clear()
    await house.publish()
    assert (await house.ask(bank)).code == "invalid_api_key"


async def test_a_registry_that_went_back_in_time_is_not_followed(
    house: House, bank: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Rewound:
        async def read(self, known: Position | None, wait: float) -> News | None:
            return house.scene.snapshot().model_copy(update={"size": 1, "keys": ()})

    house.app.feed._source = Rewound()
    house.feed.publish(house.scene.snapshot())  # ends the read under way
    await until(lambda: "rolled back" in caplog.text)
    assert (await house.ask(bank)).status == 200


async def test_metrics_count_without_naming_tenants(house: House, bank: str) -> None:
    await house.ask(bank)
    await house.ask(bank, {"stream": True})
    await house.ask(bank, {"model": "nothing"})
    found = await house.get("/metrics")
    assert found.headers["content-type"].startswith("text/plain")
    for line in (
        b'tenon_requests_total{tenant="",model="",adapter="",code="ok"} 2\n',
        b'tenon_requests_total{tenant="",model="",adapter="",code="model_not_found"} 1\n',
        b'tenon_tokens_total{tenant="",model="",adapter="",kind="completion"} 6\n',
        b'tenon_request_seconds_count{stream="true"} 1\n',
        b"tenon_attested_places 1.0",
        b"tenon_records_broken 0.0",
        b"tenon_record_heads_unsent 3.0",
    ):
        assert line in found.body
    assert b"bank_a" not in found.body
    volume = os.statvfs(house.folder)
    sizes = dict(line.rsplit(b" ", 1) for line in found.body.splitlines() if b"tenon_record_volume_" in line)
    assert float(sizes[b"tenon_record_volume_bytes"]) == volume.f_blocks * volume.f_frsize
    assert 0 < float(sizes[b"tenon_record_volume_free_bytes"]) <= volume.f_bfree * volume.f_frsize * 2


async def test_metrics_name_tenants_behind_a_token(tmp_path: Path) -> None:
    house = House(tmp_path, metrics_token="scrape")
    house.scene.engine()
    bank = house.scene.serve("bank_a")
    await house.app.start()
    await house.publish()
    await house.ask(bank)
    assert (await house.get("/metrics")).code == "invalid_api_key"
    assert (await house.get("/metrics", "wrong")).code == "invalid_api_key"
    found = await house.get("/metrics", "scrape")
    assert (
        b'tenon_requests_total{tenant="bank_a",model="assistant",adapter="desk",code="ok"} 1\n' in found.body
    )
    await house.app.stop()


async def test_a_damaged_trail_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "router-0").mkdir()
    (tmp_path / "router-0" / "000000.jsonl").write_bytes(b"{}\n")
    with pytest.raises(RecordCorrupt):
        await House(tmp_path).app.start()


async def test_lifespan(tmp_path: Path) -> None:
    house = House(tmp_path)
    inbox = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return inbox.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await house.app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    (tmp_path / "router-0" / "000000.jsonl").write_bytes(b"{}\n")
    inbox, sent = [{"type": "lifespan.startup"}], []
    await House(tmp_path).app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.failed"]


async def test_stopping_sends_a_last_head(tmp_path: Path) -> None:
    house = House(tmp_path)
    await house.app.start()
    await house.ask(None)
    await house.app.stop()
    assert len(house.heads.envelopes) == 1


async def test_websockets_are_closed(house: House) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await house.app({"type": "websocket", "path": "/"}, receive, send)
    assert sent == ["websocket.close"]


@pytest.mark.parametrize(
    "change",
    [{"writer": "../x"}, {"writer": ""}, {"salt_secret": b"short"}, {"signer": Signer.generate("engine")}],
)
def test_weak_settings_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    sound: dict[str, Any] = {
        "feed": FakeFeed(),
        "heads": FakeHeads(),
        "signer": Signer.generate("router"),
        "records_dir": tmp_path,
        "writer": "w",
        "salt_secret": SALT,
    }
    create_app(**sound)
    with pytest.raises(ValueError, match=r"writer|salt_secret|signer"):
        create_app(**sound | change)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Limits, {"body_bytes": 0}),
        (Timeouts, {"connect": 0}),
        (Freshness, {"wait": 601}),
        (Freshness, {"serve": 1}),
        (Cadence, {"head_seconds": 0}),
        (Cadence, {"receipts": 0}),
    ],
)
def test_limits_refuse_values_that_switch_protection_off(kind: type[Any], value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"positive|freshness"):
        kind(**value)


@pytest.mark.parametrize(("serve", "wait"), [(600, 5), (30, 5), (6, 1)])
def test_a_router_may_miss_the_registry_five_times(serve: float, wait: float) -> None:
    assert Freshness.within(serve) == Freshness(wait=wait, serve=serve)


async def test_a_slow_body_times_out(tmp_path: Path) -> None:
    house = House(tmp_path, limits=Limits(body_seconds=0.01))
    secret = house.scene.serve("bank_a")
    await house.app.start()
    await house.publish()
    call: Call = house.call(secret, [])
    response = await call.done()
    assert (response.status, response.code) == (408, "request_timeout")
    await house.app.stop()
