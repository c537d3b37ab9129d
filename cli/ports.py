"""Free ports on 127.0.0.1, remembered so that a restarted stack keeps them."""

import random
import socket
from pathlib import Path

from cli.errors import StackError
from cli.files import read_json, write_json

# Below Linux' range for outgoing connections (32768-60999), so that none of those takes a port
# between our choosing it and the server's listening on it.
PORT_MIN = 20_000
PORT_MAX = 29_999
ATTEMPTS_MAX = 1_000


def is_free(port: int) -> bool:
    """Whether nobody listens on 127.0.0.1:port (connections in TIME_WAIT do not count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def free_port(taken: frozenset[int] = frozenset()) -> int:
    """A free port that is not in `taken`."""
    for _ in range(ATTEMPTS_MAX):
        port = random.randint(PORT_MIN, PORT_MAX)  # noqa: S311 - no secret
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port between {PORT_MIN} and {PORT_MAX}")


class Ports:
    """The ports of one stack, by the part's name, kept in a JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ports: dict[str, int] = read_json(path)

    def claim(self, name: str) -> int:
        """The part's port: the remembered one when it is still free, else another."""
        port = self._ports.get(name)
        if port is None or not is_free(port):
            self._ports[name] = free_port(frozenset(self._ports.values()))
            write_json(self._path, self._ports)
        return self._ports[name]
