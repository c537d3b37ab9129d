"""What runs: the processes of a stack with the environment of each. Pure: starts nothing."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from cli.children import Command
from cli.errors import StackError
from cli.home import SERVICES

GATEWAY = "gateway"
PARTS = (*SERVICES, GATEWAY)
REPLICAS_MAX = 16  # of one part
LOCALHOST = "127.0.0.1"

# A graceful stop of the gateway, then of the services, then of the servers: within 25 s in all.
SHUTDOWN_S = 8

# What the supervisor sets itself, or keeps to itself: never taken over from its own environment.
OWN_SETTINGS = frozenset(
    {
        *(f"USAGEFLOW_{part.upper()}_ADDRESS" for part in PARTS),
        "USAGEFLOW_DATABASE_URL",
        "USAGEFLOW_GRPC_LISTEN",
        "USAGEFLOW_HOME",
        "USAGEFLOW_HTTP_LISTEN",
        "USAGEFLOW_HTTP_PORT",
        "USAGEFLOW_INTERNAL_TOKEN",
        "USAGEFLOW_KEY_PEPPER",
        "USAGEFLOW_NATS_URL",
        "USAGEFLOW_PARENT_PIPE_FD",
        "USAGEFLOW_PAYMENT_SECRETS_KEY",
        "USAGEFLOW_POSTGRES_SETTINGS",
        "USAGEFLOW_POSTGRES_URL",
        "USAGEFLOW_REPLICAS",
        "USAGEFLOW_SHUTDOWN_S",
        "USAGEFLOW_WEBHOOK_SECRETS_KEY",
    }
)
# Of the rest of the environment only what programs need to run and to reach the network.
SYSTEM_VARIABLES = frozenset(
    {"HOME", "HTTPS_PROXY", "HTTP_PROXY", "LANG", "NO_PROXY", "PATH", "TMPDIR", "TZ"}
    | {"https_proxy", "http_proxy", "no_proxy", "SSL_CERT_DIR", "SSL_CERT_FILE", "VIRTUAL_ENV"}
)
SYSTEM_PREFIXES = ("GRPC_", "LC_", "MALLOC_", "OTEL_", "PYTHON")

# glibc gives back what ingest took for a burst of events: at three times what it can store it had
# 139 MB instead of 183, as fast (docs/adr/0055).
INGEST_MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_TRIM_THRESHOLD_": "4194304",
}


@dataclass(frozen=True)
class Process:
    """One process: `name` is the part's ("ingest"), or "ingest-2" for its second replica."""

    name: str
    part: str
    port: int

    @property
    def address(self) -> str:
        """host:port it listens on."""
        return f"{LOCALHOST}:{self.port}"


@dataclass(frozen=True)
class Surroundings:
    """What the processes are given: URLs and secrets of this stack."""

    home: str
    nats_url: str
    database_urls: Mapping[str, str]
    internal_token: str
    key_pepper: str
    webhook_secrets_key: str
    payment_secrets_key: str
    parent_pipe_fd: int


def parse_replicas(text: str) -> dict[str, int]:
    """How often each part runs, from "ingest=2,aggregator=2"; once unless named."""
    replicas = dict.fromkeys(PARTS, 1)
    for entry in filter(None, (item.strip() for item in text.split(","))):
        part, _, count = entry.partition("=")
        if part not in replicas or not count.isdecimal() or not 1 <= int(count) <= REPLICAS_MAX:
            raise StackError(
                f"USAGEFLOW_REPLICAS: {entry!r} is not PART=COUNT with a part of {', '.join(PARTS)}"
                f" and a count of 1 to {REPLICAS_MAX}"
            )
        replicas[part] = int(count)
    return replicas


def process_names(replicas: Mapping[str, int]) -> list[tuple[str, str]]:
    """(name, part) of every process, the gateway's last."""
    return [
        (part if number == 1 else f"{part}-{number}", part)
        for part in PARTS
        for number in range(1, replicas[part] + 1)
    ]


def addresses(processes: list[Process], part: str) -> str:
    """The part's address for clients; several replicas in gRPC's form ipv4:host:port,host:port."""
    found = [process.address for process in processes if process.part == part]
    return found[0] if len(found) == 1 else "ipv4:" + ",".join(found)


def command(
    process: Process,
    processes: list[Process],
    surroundings: Surroundings,
    environ: Mapping[str, str],
) -> Command:
    """How to start a process; secrets go by the environment, which only its owner can read."""
    own = {
        "USAGEFLOW_HOME": surroundings.home,
        "USAGEFLOW_NATS_URL": surroundings.nats_url,
        "USAGEFLOW_INTERNAL_TOKEN": surroundings.internal_token,
        "USAGEFLOW_PARENT_PIPE_FD": str(surroundings.parent_pipe_fd),
        "USAGEFLOW_SHUTDOWN_S": str(SHUTDOWN_S),
    }
    for service in SERVICES:
        own[f"USAGEFLOW_{service.upper()}_ADDRESS"] = addresses(processes, service)
    if process.part == GATEWAY:
        own["USAGEFLOW_HTTP_LISTEN"] = process.address
    else:
        own["USAGEFLOW_GRPC_LISTEN"] = process.address
        own["USAGEFLOW_DATABASE_URL"] = surroundings.database_urls[process.part]
    if process.part == "accounts":
        own["USAGEFLOW_KEY_PEPPER"] = surroundings.key_pepper
    if process.part == "invoicer":
        own["USAGEFLOW_PAYMENT_SECRETS_KEY"] = surroundings.payment_secrets_key
    if process.part == "notifier":
        own["USAGEFLOW_WEBHOOK_SECRETS_KEY"] = surroundings.webhook_secrets_key
    defaults = INGEST_MALLOC if process.part == "ingest" else {}
    return Command(
        argv=(sys.executable, "-m", module(process.part)),
        env={**defaults, **passed_on(environ), **own},
        pass_fds=(surroundings.parent_pipe_fd,),
    )


def module(part: str) -> str:
    """The Python module that runs a part."""
    return GATEWAY if part == GATEWAY else f"services.{part}"


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's own settings, and of the rest of the environment what programs need."""
    kept = {
        name: value
        for name, value in environ.items()
        if (name.startswith("USAGEFLOW_") and name not in OWN_SETTINGS)
        or name in SYSTEM_VARIABLES
        or name.startswith(SYSTEM_PREFIXES)
    }
    # gRPC would look for 127.0.0.1 behind a proxy that the user has for the world.
    direct = ",".join(filter(None, (kept.get("no_proxy") or kept.get("NO_PROXY"), LOCALHOST)))
    # A local stack is for development: its webhooks may go to http and to this machine.
    defaults = {"USAGEFLOW_WEBHOOK_ALLOW_PRIVATE": "true"}
    return {**defaults, **kept, "no_proxy": direct, "NO_PROXY": direct}
