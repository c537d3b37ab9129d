"""The public HTTP API as a test's client, and what tests ask of a running stack."""

import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
from pydantic import SecretStr
from usageflow.accounts.v1 import accounts_pb2, accounts_pb2_grpc
from usageflow.common.v1 import common_pb2

from cli.connection import Connection, read_connection

REQUEST_TIMEOUT_S = 30.0
POLL_S = 0.05


def connection_of(home: Path) -> Connection:
    """The stack that runs there as it is now: processes that were killed have others."""
    connection = read_connection(home / "connection.json")
    assert connection is not None
    return connection


class Api:
    """One API key's view of UsageFlow."""

    def __init__(self, url: str, api_key: str | None) -> None:
        headers = {"x-usageflow-api-key": api_key} if api_key else {}
        self.http = httpx.Client(
            base_url=url, headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=False
        )
        self.api_key = api_key or ""

    def track(self, key: str | None = None, **event: Any) -> httpx.Response:
        """POST /api/track."""
        body = {"metric": "API_CALL", "amount": 1, "customerId": "user_123", **event}
        headers = {"Idempotency-Key": key} if key else {}
        return self.http.post("/api/track", json=body, headers=headers)

    def batch(self, events: list[dict[str, Any]]) -> dict[str, Any]:
        """POST /api/track/batch; the answer."""
        return self.ok(self.http.post("/api/track/batch", json={"events": events}))

    def get(self, path: str, **parameters: str) -> dict[str, Any]:
        """A GET that has to succeed."""
        return self.ok(self.http.get(path, params=parameters))

    def post(self, path: str, body: object) -> dict[str, Any]:
        """A POST that has to succeed."""
        return self.ok(self.http.post(path, json=body))

    def ok(self, response: httpx.Response) -> dict[str, Any]:
        """The body of an answer that has to be a 2xx."""
        assert response.is_success, (
            f"{response.request.url}: {response.status_code} {response.text}"
        )
        return dict(response.json())

    def usage(self, metric: str = "API_CALL", **parameters: str) -> str:
        """The total of a metric this month."""
        rows = self.get("/api/usage", metric=metric, **parameters)["data"]
        return str(rows[0]["value"]) if rows else "0"

    def await_usage(self, wanted: str, wait_s: float = 30.0, **parameters: str) -> None:
        """Return when the usage is `wanted`; it must not go beyond or come late."""
        wait_for(f"usage {wanted}", lambda: self.usage_or_none(**parameters) == wanted, wait_s)

    def usage_or_none(self, **parameters: str) -> str | None:
        """The total of API_CALL this month; None while no event has defined the metric."""
        response = self.http.get("/api/usage", params={"metric": "API_CALL", **parameters})
        if not response.is_success:
            return None
        rows = response.json()["data"]
        return str(rows[0]["value"]) if rows else "0"


def wait_for(what: str, arrived: Callable[[], object], wait_s: float) -> None:
    """Return when `arrived()` is true; AssertionError after `wait_s`."""
    deadline_s = time.monotonic() + wait_s
    while not arrived():
        assert time.monotonic() < deadline_s, f"{what} did not come within {wait_s} s"
        time.sleep(POLL_S)


def new_key(prefix: str = "key") -> str:
    """An idempotency key that nobody has used."""
    return f"{prefix}-{secrets.token_hex(8)}"


def new_organization(home: Path, accounts_address: str) -> str:
    """Make another organization on a running stack; an API key of its, with all scopes."""
    with grpc.insecure_channel(accounts_address) as channel:
        accounts = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
        organization = accounts.CreateOrganization(
            accounts_pb2.CreateOrganizationRequest(name="Another"),
            timeout=10,
            metadata=internal_metadata(home),
        ).organization
    return issue_key(home, accounts_address, organization.id, common_pb2.MODE_TEST)


def first_organization_id(home: Path) -> str:
    """The organization that the stack's own key belongs to."""
    return str(json.loads((home / "secrets.json").read_text())["organization_id"])


def internal_metadata(home: Path) -> tuple[tuple[str, str], ...]:
    """What UsageFlow's own processes send along."""
    return (("x-usageflow-internal-token", internal_token(home).get_secret_value()),)


def internal_token(home: Path) -> SecretStr:
    """The shared secret of the stack's own processes."""
    return SecretStr(json.loads((home / "secrets.json").read_text())["internal_token"])


def issue_key(
    home: Path, accounts_address: str, organization_id: str, mode: common_pb2.Mode.ValueType
) -> str:
    """A key with all scopes."""
    scopes = [accounts_pb2.SCOPE_TRACK, accounts_pb2.SCOPE_READ, accounts_pb2.SCOPE_ADMIN]
    request = accounts_pb2.IssueApiKeyRequest(
        organization_id=organization_id, mode=mode, scopes=scopes
    )
    with grpc.insecure_channel(accounts_address) as channel:
        accounts = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
        metadata = internal_metadata(home)
        return str(accounts.IssueApiKey(request, timeout=10, metadata=metadata).secret)
