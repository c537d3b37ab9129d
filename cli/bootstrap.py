"""An organization and its first API key, made through accounts: at the first run, or on request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from usageflow.accounts.v1 import accounts_pb2, accounts_pb2_grpc
from usageflow.common.v1 import common_pb2

from cli.errors import StackError
from cli.home import Home, Secrets

ORGANIZATION_NAME = "My organization"
KEY_NAME = "First key"
SCOPES = (accounts_pb2.SCOPE_TRACK, accounts_pb2.SCOPE_READ, accounts_pb2.SCOPE_ADMIN)
CALL_TIMEOUT_S = 10.0
KEY_MISSING = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.NOT_FOUND}


async def ensure_first_key(address: str, home: Home, secrets: Secrets) -> None:
    """Leave a working key in `secrets`, saved: the one that is there, else a new one.

    A new one is needed at the first run, when the key was revoked, and when the database is
    another one than before. StackError when accounts refuses.
    """
    async with connected(address, secrets.internal_token) as accounts:
        if secrets.api_key and await accounts.knows(secrets.api_key):
            return
        await accounts.issue_key(secrets)
    home.save_secrets(secrets)


async def new_organization(
    address: str, internal_token: str, name: str, mode: common_pb2.Mode.ValueType
) -> tuple[str, str]:
    """Make an organization; its id and a key of it with every scope. StackError: refused."""
    async with connected(address, internal_token) as accounts:
        organization_id = await accounts.create_organization(name)
        return organization_id, await accounts.issue(organization_id, mode)


@asynccontextmanager
async def connected(address: str, internal_token: str) -> AsyncIterator["Accounts"]:
    """Calls to accounts; what it refuses becomes a StackError."""
    metadata = (("x-usageflow-internal-token", internal_token),)
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        try:
            yield Accounts(accounts_pb2_grpc.AccountsInternalServiceStub(channel), metadata)
        except grpc.aio.AioRpcError as error:
            raise StackError(
                f"accounts made no API key: {error.code().name}: {error.details()}"
            ) from error


class Accounts:
    """The calls to accounts that make a first key."""

    def __init__(self, stub: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self._stub = stub
        self._options: dict[str, Any] = {
            "metadata": metadata,
            "timeout": CALL_TIMEOUT_S,
            "wait_for_ready": True,
        }

    async def knows(self, api_key: str) -> bool:
        """Whether the key works."""
        request = accounts_pb2.ResolveApiKeyRequest(secret=api_key)
        try:
            await self._stub.ResolveApiKey(request, **self._options)
        except grpc.aio.AioRpcError as error:
            if error.code() in KEY_MISSING:
                return False
            raise
        return True

    async def issue_key(self, secrets: Secrets) -> None:
        """A new key for the organization in `secrets`, and a new organization if it is gone."""
        if not secrets.organization_id:
            secrets.organization_id = await self.create_organization(ORGANIZATION_NAME)
        try:
            secrets.api_key = await self.issue(secrets.organization_id)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            secrets.organization_id = await self.create_organization(ORGANIZATION_NAME)
            secrets.api_key = await self.issue(secrets.organization_id)

    async def create_organization(self, name: str) -> str:
        """A new organization's id."""
        request = accounts_pb2.CreateOrganizationRequest(name=name)
        answer = await self._stub.CreateOrganization(request, **self._options)
        return str(answer.organization.id)

    async def issue(
        self,
        organization_id: str,
        mode: common_pb2.Mode.ValueType = common_pb2.MODE_TEST,
    ) -> str:
        """A new key with every scope."""
        request = accounts_pb2.IssueApiKeyRequest(
            organization_id=organization_id,
            mode=mode,
            name=KEY_NAME,
            scopes=SCOPES,
        )
        answer = await self._stub.IssueApiKey(request, **self._options)
        return str(answer.secret)
