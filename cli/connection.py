"""connection.json: how to reach a running stack. Scripts and tests rely on it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cli.files import read_json, write_json


@dataclass(frozen=True)
class Connection:
    """Where a running stack answers, by whom, and with which secrets.

    `pids` are by process name ("postgres", "nats", "gateway", "ingest", "ingest-2", ..) and kept
    current when a process is restarted.
    """

    http: str
    grpc: dict[str, str]
    nats: str
    databases: dict[str, str]
    api_key: str
    pids: dict[str, int]
    supervisor_pid: int
    http_replicas: list[str] = field(default_factory=list)


def write_connection(path: Path, connection: Connection) -> None:
    """Replace connection.json in one step; only its owner may read it."""
    write_json(path, asdict(connection))


def read_connection(path: Path) -> Connection | None:
    """What connection.json says; None when there is none: the stack is not (yet) running."""
    document: dict[str, Any] = read_json(path)
    return Connection(**document) if document else None
