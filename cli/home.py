"""The directory that holds a stack's state: secrets, data, ports, logs; one `up` at a time."""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cli.errors import StackError
from cli.files import private_directory, write_json

SERVICES = ("accounts", "ingest", "aggregator", "invoicer", "notifier")
SECRET_BYTES = 32
STOPPING = "stopping"
STOPPING_S_MAX = 30.0  # a stack stops within 25 s
LOCK_POLL_S = 0.05
LOCK_TEXT_BYTES = 64


def new_secret() -> str:
    """64 hexadecimal digits, so that URLs, configuration files and SQL need no quoting."""
    return secrets.token_hex(SECRET_BYTES)


@dataclass
class Secrets:
    """What a stack must not forget nor show; made at the first run, kept in secrets.json."""

    internal_token: str = field(default_factory=new_secret)
    key_pepper: str = field(default_factory=new_secret)
    webhook_secrets_key: str = field(default_factory=new_secret)
    payment_secrets_key: str = field(default_factory=new_secret)
    postgres_password: str = field(default_factory=new_secret)
    nats_password: str = field(default_factory=new_secret)
    database_passwords: dict[str, str] = field(default_factory=dict)
    organization_id: str = ""
    api_key: str = ""


@dataclass(frozen=True)
class Lock:
    """flock on a file that says who holds it, and whether that one is on its way out."""

    descriptor: int

    def take(self, path: Path, on_wait: Callable[[], None]) -> None:
        """Take the lock, at once or when a holder that is stopping has gone; else StackError."""
        deadline = time.monotonic() + STOPPING_S_MAX
        waited = False
        while not self._try():
            pid, _, state = os.pread(self.descriptor, LOCK_TEXT_BYTES, 0).decode().partition(" ")
            if state != STOPPING or time.monotonic() > deadline:
                raise StackError(
                    f"another `usageflow up` (pid {pid}) runs in {path}: stop it, or choose"
                    " another directory with USAGEFLOW_HOME (or --home)"
                )
            if not waited:
                on_wait()
            waited = True
            time.sleep(LOCK_POLL_S)
        self._write(str(os.getpid()))

    def stopping(self) -> None:
        """Tell those who want the lock that it is worth waiting for."""
        self._write(f"{os.getpid()} {STOPPING}")

    def _try(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _write(self, text: str) -> None:
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)


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
    def locked(self, on_wait: Callable[[], None]) -> Iterator["Lock"]:
        """Make the directory and be the only one who runs a stack in it; StackError otherwise.

        `on_wait` is called before waiting for another that is stopping.
        """
        private_directory(self.path)
        private_directory(self.logs)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock = Lock(descriptor)
        try:
            lock.take(self.path, on_wait)
            yield lock
        finally:
            os.close(descriptor)

    def load_secrets(self) -> Secrets:
        """The secrets of this home; those that are missing are made and saved first."""
        path = self.path / "secrets.json"
        try:
            loaded = Secrets(**json.loads(path.read_text())) if path.exists() else Secrets()
        except (TypeError, ValueError) as error:
            raise StackError(f"{path} is not what UsageFlow wrote: {error}") from error
        for service in SERVICES:
            loaded.database_passwords.setdefault(service, new_secret())
        self.save_secrets(loaded)
        return loaded

    def save_secrets(self, changed: Secrets) -> None:
        """Write secrets.json (0600), on disk before this returns."""
        write_json(self.path / "secrets.json", asdict(changed), durable=True)
