"""What an operator runs beside the processes: in a container, or against servers of one's own.

Settings come from the environment, as those of the processes do; secrets never stand in argv.
"""

import os
from collections.abc import Mapping
from enum import StrEnum

from asyncpg.exceptions import InterfaceError, PostgresError
from usageflow.common.v1 import common_pb2

from cli.bootstrap import new_organization, sign_in_path
from cli.databases import ensure_databases
from cli.errors import StackError
from cli.home import SERVICES
from cli.plan import LOCALHOST
from cli.probes import LIVE, grpc_serving, http_ok


class Mode(StrEnum):
    """What a key's events are: billed, or a try."""

    LIVE = "live"
    TEST = "test"


MODE_NUMBERS = {Mode.LIVE: common_pb2.MODE_LIVE, Mode.TEST: common_pb2.MODE_TEST}


async def check_health(*, ready: bool, environ: Mapping[str, str] = os.environ) -> None:
    """Ask the process that listens by this environment's settings; NotReadyError otherwise.

    Whether it lives, or, when `ready`, whether it can do its work now. What restarts a process must
    ask the first: a restart does not bring back a database that is away.
    """
    if listen := environ.get("USAGEFLOW_HTTP_LISTEN"):
        await http_ok(local(listen), "/readyz" if ready else "/healthz")
    else:
        address = local(required(environ, "USAGEFLOW_GRPC_LISTEN"))
        await grpc_serving(address, "" if ready else LIVE)


async def create_databases(environ: Mapping[str, str] = os.environ) -> None:
    """Make each service's database and role on a server of one's own; repeat it at will."""
    admin_url = required(environ, "USAGEFLOW_POSTGRES_URL")
    passwords = {
        service: required(environ, f"USAGEFLOW_{service.upper()}_DATABASE_PASSWORD")
        for service in SERVICES
    }
    try:
        await ensure_databases(admin_url, passwords)
    except (OSError, PostgresError, InterfaceError) as error:
        raise StackError(f"PostgreSQL refused: {error}") from error


async def create_organization(
    name: str, mode: Mode, environ: Mapping[str, str] = os.environ
) -> tuple[str, str]:
    """Make an organization; its id and its first API key, which is shown nowhere else."""
    address = required(environ, "USAGEFLOW_ACCOUNTS_ADDRESS")
    token = required(environ, "USAGEFLOW_INTERNAL_TOKEN")
    return await new_organization(address, token, name, MODE_NUMBERS[mode])


async def create_sign_in_link(
    organization_id: str, email: str, environ: Mapping[str, str] = os.environ
) -> str:
    """A link that signs a member in once; without `email` the first owner, whom an organization
    without any gets. A path alone when USAGEFLOW_PUBLIC_URL does not say where the gateway is.
    """
    path = await sign_in_path(
        required(environ, "USAGEFLOW_ACCOUNTS_ADDRESS"),
        required(environ, "USAGEFLOW_INTERNAL_TOKEN"),
        organization_id,
        email=email,
        owner_email=environ.get("USAGEFLOW_OWNER_EMAIL", ""),
    )
    return environ.get("USAGEFLOW_PUBLIC_URL", "").rstrip("/") + path


def required(environ: Mapping[str, str], name: str) -> str:
    """A variable's value; StackError that names it when it is missing or empty."""
    value = environ.get(name)
    if not value:
        raise StackError(f"{name} is not set")
    return value


def local(listen: str) -> str:
    """Where a process that listens on host:port is reached from its own machine."""
    host, _, port = listen.rpartition(":")
    return f"{LOCALHOST}:{port}" if host in {"0.0.0.0", "[::]"} else listen  # noqa: S104
