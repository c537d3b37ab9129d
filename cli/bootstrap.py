"""An organization and its first API key, made through accounts: at the first run, or on request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from usageflow.accounts.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    members_pb2,
    members_pb2_grpc,
)
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


async def sign_in_path(
    address: str,
    internal_token: str,
    organization_id: str,
    *,
    email: str = "",
    owner_email: str = "",
) -> str:
    """A path under the gateway's URL that signs a member in once: the one with `email`, else the
    first owner, whom an organization without any gets, with `owner_email`. StackError: refused.
    """
    async with connected(address, internal_token) as accounts:
        token = await accounts.sign_in_token(organization_id, email, owner_email)
    return f"/sign-in?token={token}"


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
            yield Accounts(channel, metadata)
        except grpc.aio.AioRpcError as error:
            raise StackError(f"accounts refused: {error.code().name}: {error.details()}") from error


class Accounts:
    """The calls to accounts that make a first key and let somebody in."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._stub: Any = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
        self._members: Any = members_pb2_grpc.MembersInternalServiceStub(channel)
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

    async def sign_in_token(self, organization_id: str, email: str, owner_email: str) -> str:
        """The token of a link that signs a member in once."""
        request = members_pb2.CreateSignInLinkRequest(
            organization_id=organization_id, email=email, default_email=owner_email
        )
        answer = await self._members.CreateSignInLink(request, **self._options)
        return str(answer.token)
