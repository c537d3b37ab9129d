"""Free ports, kept over restarts."""

import socket
import subprocess
import sys
from pathlib import Path

from cli.ports import PORT_MAX, PORT_MIN, Ports, free_port, is_free


def listener(port: int) -> socket.socket:
    """Somebody who listens on the port."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    taken.listen(1)
    return taken


def test_a_port_with_a_listener_is_not_free() -> None:
    """And it is free again afterwards."""
    port = free_port()
    with listener(port):
        assert not is_free(port)
    assert is_free(port)


def test_free_ports_are_below_those_of_outgoing_connections() -> None:
    """So that no outgoing connection takes one before its server listens."""
    assert PORT_MIN <= free_port() <= PORT_MAX < 32768


def test_a_part_gets_its_port_again(tmp_path: Path) -> None:
    """Over restarts of the whole stack."""
    first = Ports(tmp_path / "ports.json").claim("ingest")
    assert Ports(tmp_path / "ports.json").claim("ingest") == first


def test_a_part_gets_another_port_when_its_own_is_taken(tmp_path: Path) -> None:
    """And keeps that one from then on."""
    first = Ports(tmp_path / "ports.json").claim("ingest")
    with listener(first):
        second = Ports(tmp_path / "ports.json").claim("ingest")
    assert second != first
    assert Ports(tmp_path / "ports.json").claim("ingest") == second


def test_two_parts_have_two_ports(tmp_path: Path) -> None:
    """Although neither listens yet."""
    ports = Ports(tmp_path / "ports.json")
    assert len({ports.claim(f"part-{number}") for number in range(50)}) == 50


def test_what_one_process_chose_no_other_gets() -> None:
    """Although nobody listens there yet: two stacks that start at once never share a port."""
    port = free_port()
    assert is_free(port)
    code = (
        f"import random; random.randint = lambda *_: {port}; import cli.ports as p; p.free_port()"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "StackError: no free port" in elsewhere.stderr
