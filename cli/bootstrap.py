"""The first organization and its API key, made through accounts at the first run."""

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
    metadata = (("x-usageflow-internal-token", secrets.internal_token),)
    async with grpc.aio.insecure_channel(
        address, options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        stub = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
        accounts = Accounts(stub, metadata)
        try:
            if secrets.api_key and await accounts.knows(secrets.api_key):
                return
            await accounts.issue_key(secrets)
        except grpc.aio.AioRpcError as error:
            raise StackError(
                f"accounts made no API key: {error.code().name}: {error.details()}"
            ) from error
    home.save_secrets(secrets)


class Accounts:
    """The calls to accounts that a first run needs."""

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
            secrets.organization_id = await self._create_organization()
        try:
            secrets.api_key = await self._issue(secrets.organization_id)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            secrets.organization_id = await self._create_organization()
            secrets.api_key = await self._issue(secrets.organization_id)

    async def _create_organization(self) -> str:
        request = accounts_pb2.CreateOrganizationRequest(name=ORGANIZATION_NAME)
        answer = await self._stub.CreateOrganization(request, **self._options)
        return str(answer.organization.id)

    async def _issue(self, organization_id: str) -> str:
        request = accounts_pb2.IssueApiKeyRequest(
            organization_id=organization_id,
            mode=common_pb2.MODE_TEST,
            name=KEY_NAME,
            scopes=SCOPES,
        )
        answer = await self._stub.IssueApiKey(request, **self._options)
        return str(answer.secret)
