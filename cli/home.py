"""The directory that holds a stack's state: secrets, data, ports, logs; one `up` at a time."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cli.errors import StackError
from cli.files import private_directory, read_json, write_json

SERVICES = ("accounts", "ingest", "aggregator", "invoicer", "notifier")
SECRET_BYTES = 32


def new_secret() -> str:
    """64 hexadecimal digits, so that URLs, configuration files and SQL need no quoting."""
    return secrets.token_hex(SECRET_BYTES)


@dataclass
class Secrets:
    """What a stack must not forget nor show; made at the first run, kept in secrets.json."""

    internal_token: str = field(default_factory=new_secret)
    key_pepper: str = field(default_factory=new_secret)
    postgres_password: str = field(default_factory=new_secret)
    nats_password: str = field(default_factory=new_secret)
    database_passwords: dict[str, str] = field(
        default_factory=lambda: {service: new_secret() for service in SERVICES}
    )
    organization_id: str = ""
    api_key: str = ""


@dataclass(frozen=True)
class Home:
    """Where everything of one stack is. `path` is absolute."""

    path: Path

    @property
    def logs(self) -> Path:
        """A log file for each process."""
        return self.path / "logs"

    @property
    def connection(self) -> Path:
        """How to reach the running stack; there only while it runs."""
        return self.path / "connection.json"

    @property
    def pids(self) -> Path:
        """Process ids of the services, by name, also while the stack starts and after a crash."""
        return self.path / "pids.json"

    @property
    def ports(self) -> Path:
        """The ports that a restart takes again."""
        return self.path / "ports.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory and be the only one who runs a stack in it; StackError otherwise."""
        private_directory(self.path)
        private_directory(self.logs)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 20).decode() or "unknown"
            raise StackError(
                f"another `usageflow up` (pid {pid}) runs in {self.path}: stop it, or choose"
                " another directory with USAGEFLOW_HOME (or --home)"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())

    def load_secrets(self) -> Secrets:
        """The secrets of this home; those that are missing are made and saved first."""
        loaded = Secrets(**read_json(self.path / "secrets.json"))
        self.save_secrets(loaded)
        return loaded

    def save_secrets(self, changed: Secrets) -> None:
        """Write secrets.json (0600), on disk before this returns."""
        write_json(self.path / "secrets.json", asdict(changed), durable=True)
