"""Which ports a local stack takes."""

import socket

import pytest

from server.assembly import stack
from server.assembly.stack import Ports, _reserved
from server.errors import PortTaken


def test_two_stacks_that_start_at_the_same_time_take_different_ports() -> None:
    """Though neither has bound its ports yet."""
    one = Ports.free(engines=2)
    with _reserved(one):
        other = Ports.free(engines=2)
        assert not set(one.named().values()) & set(other.named().values())
        with pytest.raises(PortTaken, match=f"port {one.router}, meant for the router"):
            _reserved(one)
        with _reserved(other), pytest.raises(PortTaken):
            _reserved(Ports(router=other.router, control=other.control))
    again = _reserved(one)
    again.close()


def test_what_could_not_be_reserved_whole_reserves_nothing() -> None:
    ports = Ports.free()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.vllm))
        with pytest.raises(PortTaken, match="vllm"):
            _reserved(ports)
    _reserved(ports).close()


def test_the_reserved_port_is_the_processes_to_take() -> None:
    ports = Ports.free()
    with _reserved(ports), socket.create_server(("127.0.0.1", ports.router)):
        assert not stack._is_free(ports.router)
