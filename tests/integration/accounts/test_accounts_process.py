"""accounts as the process that `python -m services.accounts` starts."""

import asyncio
import os
import signal
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from usageflow.accounts.v1 import accounts_pb2 as pb
from usageflow.accounts.v1 import accounts_pb2_grpc
from usageflow.common.v1 import common_pb2

from cli.ports import free_port
from services.kit.grpc_client import open_channel

START_S = 20.0
STOP_S = 20.0
TOKEN = "internal-token-of-32-characters-"
PEPPER = "key-pepper-of-more-than-32-characters"


async def test_the_process_starts_answers_and_stops_without_showing_a_secret(
    database_url: str, nats_url: str
) -> None:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "USAGEFLOW_DATABASE_URL": database_url,
        "USAGEFLOW_NATS_URL": nats_url,
        "USAGEFLOW_GRPC_LISTEN": f"127.0.0.1:{port}",
        "USAGEFLOW_INTERNAL_TOKEN": TOKEN,
        "USAGEFLOW_KEY_PEPPER": PEPPER,
        "USAGEFLOW_LOG_LEVEL": "debug",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.accounts",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with open_channel(f"127.0.0.1:{port}") as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(  # type: ignore[attr-defined]
            health_pb2.HealthCheckRequest(service="usageflow.accounts.v1.AccountsService"),
            timeout=START_S,
            wait_for_ready=True,
        )
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        secret = await first_key(channel)
    process.send_signal(signal.SIGTERM)
    output, _ = await asyncio.wait_for(process.communicate(), STOP_S)
    assert process.returncode == 0, output.decode()
    log = output.decode()
    assert "api_key_created" in log
    for private in (secret[12:], TOKEN, PEPPER, database_url):
        assert private not in log


async def first_key(channel: grpc.aio.Channel) -> str:
    """Make an organization and its first key."""
    internal = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
    metadata = (("x-usageflow-internal-token", TOKEN),)
    made = await internal.CreateOrganization(
        pb.CreateOrganizationRequest(name="Acme"), timeout=START_S, metadata=metadata
    )
    issued = await internal.IssueApiKey(
        pb.IssueApiKeyRequest(
            organization_id=made.organization.id,
            mode=common_pb2.MODE_TEST,
            scopes=[pb.SCOPE_ADMIN],
        ),
        timeout=START_S,
        metadata=metadata,
    )
    return issued.secret
