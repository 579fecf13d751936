"""The official ``openai`` client for Node: ``tests/clients/node``, run against a router on real sockets."""

from tests.clients import node_suite
from tests.clients.conftest import Desk


async def test_the_node_client(desk: Desk) -> None:
    told = {"TENON_URL": desk.url, "TENON_KEY": desk.secret, "SIGNED": desk.signed}
    await node_suite.passes("openai.test.js", **told)
