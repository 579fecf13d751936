"""Kubernetes as a source: its watch protocol, and everything that goes wrong with one."""

import asyncio
import json
import logging
import ssl
from pathlib import Path

import pytest

from registry.errors import InvalidDocument
from server.engines.discovery.kubernetes import WATCH, ApiServer, Kubernetes
from server.engines.discovery.sighting import Address
from server.testing.fake_kubernetes import FakeKubernetes, endpoint
from tests.support.clusters import (
    SERVICES,
    certified,
    cluster,
    following,
    service_account,
    source_of,
    until,
)


def at(host: str) -> frozenset[Address]:
    return frozenset({Address(host, 8411)})


async def test_it_lists_once_and_watches_from_there(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.api.put("a", endpoint("engine-0", "10.1.0.5"))
        await made.until(lambda: "engine-0" in made.listed)
        await made.api.put("b", endpoint("engine-1", "10.1.0.6"), service="tenon-engine-large")
        await made.until(lambda: set(made.listed) == {"engine-0", "engine-1"})
        await made.api.delete("a")
        await made.until(lambda: set(made.listed) == {"engine-1"})
        assert (made.lists, made.watches) == (1, 1)
        query = made.api.asked[-1]
        assert query["labelSelector"] == "kubernetes.io/service-name in (tenon-engine,tenon-engine-large)"
        assert (query["allowWatchBookmarks"], query["timeoutSeconds"]) == ("true", str(WATCH))
        assert made.pauses == []


async def test_a_long_list_comes_in_pages(tmp_path: Path) -> None:
    api = FakeKubernetes(page=2)
    for number in range(5):
        await api.put(f"slice-{number}", endpoint(f"engine-{number}", f"10.1.0.{number}"))
    async with api.serving() as url:
        source = source_of(url, service_account(tmp_path / "account"), [])
        assert len((await source.once()).engines) == 5
    assert len(api.asked) == 3


@pytest.mark.parametrize("order", [(False, True), (True, False)])
async def test_of_two_pods_with_one_name_the_one_that_stays_counts(
    order: tuple[bool, bool], tmp_path: Path
) -> None:
    """A set's pod that ends, and the next one of its name, may be listed together for a moment."""
    both = [endpoint("engine-0", "10.1.0.9" if ends else "10.1.0.5", terminating=ends) for ends in order]
    async with cluster(tmp_path) as made:
        await made.api.put("a", *both)
        await made.until(lambda: "engine-0" in made.listed)
        assert made.listed["engine-0"].addresses == at("10.1.0.5")
        assert not made.listed["engine-0"].ending
        await made.api.put("a", both[order.index(True)])
        await made.until(lambda: made.listed["engine-0"].ending)
        assert made.listed["engine-0"].addresses == at("10.1.0.9")


async def test_an_endpoint_in_two_slices_is_one_engine_until_both_have_lost_it(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.api.put("a", endpoint("engine-0", "10.1.0.5"))
        await made.api.put("b", endpoint("engine-0", "10.1.0.5"), endpoint("engine-1", "10.1.0.6"))
        await made.until(lambda: "engine-1" in made.listed)
        await made.api.put("a")
        await made.api.put("c", endpoint("engine-2", "10.1.0.7"))
        await made.until(lambda: "engine-2" in made.listed)
        assert set(made.listed) == {"engine-0", "engine-1", "engine-2"}


async def test_what_is_no_engine_is_passed_over(tmp_path: Path) -> None:
    node = endpoint("engine-7", "10.1.0.7") | {"targetRef": {"kind": "Node", "name": "engine-7"}}
    nobody = {"addresses": ["10.1.0.8"], "conditions": {}}
    elsewhere = endpoint("engine-8", "10.1.0.8", namespace="other")
    unnameable = endpoint("Engine.9", "10.1.0.9")
    async with cluster(tmp_path) as made:
        await made.until(lambda: made.watches == 1)  # the server filters its lists by itself
        await made.api.put("strange", node, nobody, elsewhere, unnameable, endpoint("engine-0", "10.1.0.5"))
        await made.api.put("web", endpoint("web-0", "10.1.0.3"), service="tenon-router")
        await made.api.put("no-vllm", endpoint("web-1", "10.1.0.3"), ports={"http": 80})
        await made.until(lambda: "engine-0" in made.listed)
        await made.api.put("last", endpoint("engine-1", "10.1.0.6"))
        await made.until(lambda: "engine-1" in made.listed)
        assert set(made.listed) == {"engine-0", "engine-1"}
        await made.api.put("last", endpoint("engine-1", "10.1.0.6"), service="tenon-router")
        await made.until(lambda: set(made.listed) == {"engine-0"})


async def test_a_watch_that_is_cut_in_a_line_goes_on_where_it_was(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.until(lambda: made.watches == 1)
        await made.api.put("a", endpoint("engine-0", "10.1.0.5"))
        await made.until(lambda: "engine-0" in made.listed)
        version = str(made.api._version)
        await made.api.send(b'{"type":"DELETED","object":{"metadata":{"name":"a","na', cut=True)
        await made.until(lambda: made.watches == 2)
        assert made.lists == 1
        assert made.api.asked[-1]["resourceVersion"] == version
        assert set(made.listed) == {"engine-0"}
        await made.api.put("b", endpoint("engine-1", "10.1.0.6"))
        await made.until(lambda: "engine-1" in made.listed)


async def test_a_line_may_come_in_pieces_and_two_at_once(tmp_path: Path) -> None:
    def line(name: str) -> bytes:
        told = json.dumps(
            {
                "type": "ADDED",
                "object": {
                    "metadata": {
                        "name": f"slice-{name}",
                        "namespace": "prod",
                        "resourceVersion": "900",
                        "labels": {"kubernetes.io/service-name": "tenon-engine"},
                    },
                    "addressType": "IPv4",
                    "endpoints": [endpoint(name, "10.1.0.5")],
                    "ports": [{"name": "vllm", "port": 8411}],
                },
            }
        )
        return told.encode() + b"\n"

    async with cluster(tmp_path) as made:
        await made.until(lambda: made.watches == 1)
        first, rest = line("engine-0")[:50], line("engine-0")[50:]
        for piece in (first, rest[:1], rest[1:-1], rest[-1:] + line("engine-1") + b"\n" + line("engine-2")):
            await made.api.send(piece)
            await asyncio.sleep(0.005)
        await made.until(lambda: set(made.listed) == {"engine-0", "engine-1", "engine-2"})
        assert (made.lists, made.watches) == (1, 1)


async def test_a_bookmark_moves_the_place_to_go_on_from(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.until(lambda: made.watches == 1)
        await made.api.bookmark()
        version = str(made.api._version)
        await made.api.put("a", endpoint("engine-0", "10.1.0.5"))
        await made.until(lambda: "engine-0" in made.listed)
        heard = made.source.look().heard
        await made.api.bookmark()
        await made.until(lambda: made.source.look().heard != heard)
        await made.api.send(b"", cut=True)
        await made.until(lambda: made.watches == 2)
        assert int(made.api.asked[-1]["resourceVersion"]) == int(version) + 8


async def test_after_410_gone_everything_is_listed_anew(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.api.put("a", endpoint("engine-0", "10.1.0.5"))
        await made.api.put("b", endpoint("engine-1", "10.1.0.6"))
        await made.until(lambda: set(made.listed) == {"engine-0", "engine-1"})
        # What happened meanwhile is told by nobody any more: the list alone shows it.
        made.api._slices.pop("a")
        await made.api.forget()
        await made.until(lambda: made.lists == 2)
        await made.until(lambda: set(made.listed) == {"engine-1"})
        # And when a watch that begins is refused for it.
        await made.until(lambda: made.watches == 2)
        made.api._version += 1
        made.api._oldest = made.api._version
        await made.api.send(b"", cut=True)
        await made.until(lambda: made.lists == 3)
        await made.api.put("c", endpoint("engine-2", "10.1.0.7"))
        await made.until(lambda: set(made.listed) == {"engine-1", "engine-2"})


@pytest.mark.parametrize(
    "garbage",
    [
        b"<html>502 Bad Gateway</html>\n",
        b'{"type":"ADDED","object":[]}\n',
        b'{"type":"RENAMED","object":{}}\n',
        b'{"type":"ADDED","type":"DELETED","object":{}}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":"a"},"endpoints":[{"addresses":"10.1.0.5"}]}}\n',
        b'{"type":"ERROR","object":{"code":500}}\n',
        b"\xff\xfe\n",
        b"x" * (4 * 1024 * 1024 + 1),
    ],
)
async def test_garbage_changes_nothing_and_leads_to_a_new_list(garbage: bytes, tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.api.put("a", endpoint("engine-0", "10.1.0.5"))
        await made.until(lambda: "engine-0" in made.listed and made.watches == 1)
        await made.api.send(garbage)
        await made.until(lambda: made.lists == 2)
        assert set(made.listed) == {"engine-0"}
        await made.api.put("b", endpoint("engine-1", "10.1.0.6"))
        await made.until(lambda: "engine-1" in made.listed)


async def test_a_server_that_is_away_leaves_what_is_known_and_is_asked_less_and_less(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api, pauses = FakeKubernetes(), list[float]()
    account = service_account(tmp_path / "account")
    async with api.serving() as url:
        source = source_of(url, account, pauses)
        await api.put("a", endpoint("engine-0", "10.1.0.5"))
        await source.once()
        port = int(url.rpartition(":")[2])
    heard = source.look().heard
    with caplog.at_level(logging.WARNING):
        async with following(source):
            await until(lambda: len(pauses) >= 9)
            assert pauses[:7] == [1, 2, 4, 8, 16, 30, 30]
            assert set(source.look().engines) == {"engine-0"}
            assert source.look().heard == heard
            # Of what happened meanwhile, it hears everything.
            await api.put("a", endpoint("engine-0", "10.1.0.5", terminating=True))
            async with api.serving(port=port):
                await until(lambda: source.look().engines["engine-0"].ending)
    assert len(caplog.records) == 1


async def test_a_token_that_was_rotated_is_read_again(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.until(lambda: made.watches == 1)
        made.api.token = "token-2"
        await made.api.send(b"", cut=True)
        await made.until(lambda: made.api.refused > 1)
        (made.account / "token").write_text("half\nwritten")  # and for a moment it is none at all
        await made.until(lambda: len(made.pauses) > 5)
        (made.account / "token").write_text("token-2")
        await made.api.put("a", endpoint("engine-0", "10.1.0.5"))
        await made.until(lambda: "engine-0" in made.listed)


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_without_a_pause(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        await made.until(lambda: made.watches == 1)
        made.api.ends_at_once = True
        await made.api.send(b"\n")
        await made.until(lambda: len(made.pauses) >= 5)
        assert made.pauses[:5] == [1, 2, 4, 8, 16]
        assert made.lists == 1


async def test_a_watch_that_lasted_is_a_word_of_the_server_and_forgives_what_was_before(
    tmp_path: Path,
) -> None:
    now, pauses = [100.0], list[float]()
    api = FakeKubernetes()
    api.token = "token-2"
    account = service_account(tmp_path / "account")
    async with api.serving() as url:
        source = source_of(url, account, pauses, ticks=lambda: now[0])
        async with following(source):
            await until(lambda: len(pauses) >= 3)
            (account / "token").write_text("token-2")
            await until(lambda: api.asked[-1:] != [] and "watch" in api.asked[-1])
            assert source.look().heard == 100
            now[0] += 5
            count = len(pauses)
            api.ends_at_once = True
            await api.send(b"\n")
            await until(lambda: len(pauses) >= count + 2)
            assert pauses[count : count + 2] == [1, 2]
            assert source.look().heard == 105


async def test_only_the_accounts_certificates_are_trusted(tmp_path: Path) -> None:
    ca, tls = certified(tmp_path)
    (tmp_path / "other").mkdir()
    other, _ = certified(tmp_path / "other")
    api = FakeKubernetes()
    await api.put("a", endpoint("engine-0", "10.1.0.5"))
    account = service_account(tmp_path / "account", ca=other)
    async with api.serving(tls=tls) as url:
        source = source_of(url, account, [])
        with pytest.raises(ssl.SSLError):
            await source.once()
        assert (api.asked, api.refused) == ([], 0)  # it was shown no token
        (account / "ca.crt").write_bytes(ca)  # rotated, too
        async with following(source):
            await until(lambda: "engine-0" in source.look().engines)
            await api.put("b", endpoint("engine-1", "10.1.0.6"))
            await until(lambda: "engine-1" in source.look().engines)


async def test_a_refusal_is_told_without_the_servers_words(tmp_path: Path) -> None:
    api = FakeKubernetes()
    api.token = "another"
    async with api.serving() as url:
        source = source_of(url, service_account(tmp_path / "account"), [])
        with pytest.raises(InvalidDocument, match="answered 401"):
            await source.once()
        assert source.look().heard is None


def test_what_is_asked_needs_no_more_than_list_and_watch_in_one_namespace() -> None:
    server = ApiServer(url="https://k/", namespace="prod", services=SERVICES, account=Path("/nowhere"))
    assert server.path == "https://k/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices"
    assert Kubernetes(server).look().heard is None
