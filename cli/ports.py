"""Free ports on 127.0.0.1, held for who chose them and remembered for a restarted stack."""

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

# A port that was chosen stays bound, without listening, until this process ends: a server with
# SO_REUSEADDR (all of ours) can listen on it, yet nobody else who looks for a free one gets it.
_held: dict[int, socket.socket] = {}


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


def _hold(port: int, shared: bool = False) -> bool:
    """Keep a port bound; False when somebody else has it. A shared one may be held elsewhere too,
    and its old connections may be in TIME_WAIT.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shared)
    try:
        holder.bind(("127.0.0.1", port))
    except OSError:
        holder.close()
        return False
    # From now on, so that the server can listen: set before, it would admit a second holder.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _held[port] = holder
    return True


def free_port(taken: frozenset[int] = frozenset()) -> int:
    """A free port that is not in `taken`, and that no other call here or elsewhere returns while
    this process lives.
    """
    for _ in range(ATTEMPTS_MAX):
        port = random.randint(PORT_MIN, PORT_MAX)  # noqa: S311 - no secret
        if port not in taken and _hold(port):
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
        if port is None or not (is_free(port) and _hold(port, shared=True)):
            self._ports[name] = free_port(frozenset(self._ports.values()))
            write_json(self._path, self._ports)
        return self._ports[name]
