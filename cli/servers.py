"""PostgreSQL and NATS of a stack: embedded and kept running, or the user's own by their URLs."""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from asyncpg.exceptions import InterfaceError, PostgresError

from cli.databases import close_shared_databases, ensure_databases
from cli.embedded import NATS_STOP_S, POSTGRES_STOP_S, EmbeddedNats, EmbeddedPostgres
from cli.errors import StackError
from cli.home import Home, Secrets
from cli.ports import Ports
from cli.supervisor import Part

POSTGRES_URL = "USAGEFLOW_POSTGRES_URL"
NATS_URL = "USAGEFLOW_NATS_URL"
POSTGRES_SETTINGS = "USAGEFLOW_POSTGRES_SETTINGS"


@dataclass(frozen=True)
class Servers:
    """URLs of the servers, and the parts to keep running for those that are embedded."""

    admin_url: str
    nats_url: str
    parts: list[Part]
    embeds_postgres: bool

    async def make_databases(self, secrets: Secrets) -> dict[str, str]:
        """A database for each service; their URLs. StackError when the server refuses."""
        try:
            urls = await ensure_databases(self.admin_url, secrets.database_passwords)
            if self.embeds_postgres:
                await close_shared_databases(self.admin_url)
        except (OSError, PostgresError, InterfaceError) as error:
            raise StackError(f"the databases could not be made: {error}") from error
        return urls


def plan_servers(
    home: Home, ports: Ports, secrets: Secrets, environ: Mapping[str, str] = os.environ
) -> Servers:
    """What to start, and what of the user's own to use, by USAGEFLOW_POSTGRES_URL and _NATS_URL."""
    parts = []
    admin_url = environ.get(POSTGRES_URL, "")
    nats_url = environ.get(NATS_URL, "")
    embeds_postgres = not admin_url
    if embeds_postgres:
        postgres = EmbeddedPostgres(
            home.path / "postgres",
            ports.claim("postgres"),
            secrets.postgres_password,
            home.logs / "postgres.log",
            parse_settings(environ.get(POSTGRES_SETTINGS, "")),
        )
        admin_url = postgres.url()
        parts.append(postgres_part(postgres))
    if not nats_url:
        nats = EmbeddedNats(
            home.path / "nats", ports.claim("nats"), secrets.nats_password, home.logs / "nats.log"
        )
        nats_url = nats.url
        parts.append(nats_part(nats))
    return Servers(admin_url, nats_url, parts, embeds_postgres)


def postgres_part(server: EmbeddedPostgres) -> Part:
    """The embedded PostgreSQL as a part; killed means an immediate shutdown, safe for its data."""
    return Part(
        name="postgres",
        prepare=server.prepare,
        start=server.start,
        ready=server.probe,
        stop_signal=signal.SIGINT,
        stop_s=POSTGRES_STOP_S,
        kill_signal=signal.SIGQUIT,
    )


def nats_part(server: EmbeddedNats) -> Part:
    """The embedded NATS as a part."""
    return Part(
        name="nats",
        prepare=server.prepare,
        start=server.start,
        ready=server.probe,
        stop_s=NATS_STOP_S,
    )


def parse_settings(text: str) -> dict[str, str]:
    """PostgreSQL settings from "shared_buffers=1GB,max_wal_size=16GB"; StackError if malformed."""
    settings = {}
    for entry in filter(None, (item.strip() for item in text.split(","))):
        name, equals, value = entry.partition("=")
        if not equals or not name.replace("_", "").replace(".", "").isalnum():
            raise StackError(f"{POSTGRES_SETTINGS}: {entry!r} is not NAME=VALUE")
        settings[name.strip()] = value.strip()
    return settings
