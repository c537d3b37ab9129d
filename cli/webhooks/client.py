"""notifier in the name of an API key. A key is never an argument: those can be seen by all."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from usageflow.notifier.v1 import notifier_pb2 as pb
from usageflow.notifier.v1 import notifier_pb2_grpc

from cli.connection import read_connection
from cli.errors import StackError
from services.kit.grpc_client import DEADLINE_S, api_key_metadata, open_channel

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

ADDRESS_VARIABLE = "USAGEFLOW_NOTIFIER_ADDRESS"
API_KEY_VARIABLE = "USAGEFLOW_API_KEY"


@dataclass(frozen=True)
class Client:
    """Calls notifier; what it refuses becomes a StackError with its sentence."""

    stub: "notifier_pb2_grpc.NotifierServiceAsyncStub"
    api_key: str

    async def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        """The answer."""
        try:
            return await method(
                request, timeout=DEADLINE_S, metadata=api_key_metadata(self.api_key)
            )
        except grpc.aio.AioRpcError as error:
            raise refused(error) from error

    async def listen(self, event_types: list[str]) -> AsyncIterator[pb.ListenEventsResponse]:
        """The stream of ListenEvents until it ends."""
        request = pb.ListenEventsRequest(event_types=event_types)
        try:
            async for response in self.stub.ListenEvents(
                request, metadata=api_key_metadata(self.api_key)
            ):
                yield response
        except grpc.aio.AioRpcError as error:
            raise refused(error) from error


class RefusedError(StackError):
    """notifier refused; `away` when it can't be reached now, so that trying again may help."""

    def __init__(self, message: str, *, away: bool) -> None:
        super().__init__(message)
        self.away = away


def refused(error: grpc.aio.AioRpcError) -> RefusedError:
    """What to tell of an RPC's error."""
    away = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return RefusedError(f"notifier: {error.details() or error.code().name}", away=away)


def find_notifier(home: Path, environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """notifier's host:port and an API key: of the environment, else of the stack in `home`."""
    address, api_key = environ.get(ADDRESS_VARIABLE, ""), environ.get(API_KEY_VARIABLE, "")
    if not address:
        connection = read_connection(home / "connection.json")
        if connection is None:
            raise StackError(f"no stack runs in {home}: start one, or set {ADDRESS_VARIABLE}")
        address, api_key = connection.grpc["notifier"], api_key or connection.api_key
    if not api_key:
        raise StackError(f"{API_KEY_VARIABLE} is not set")
    return address, api_key


@asynccontextmanager
async def connected(home: Path) -> AsyncIterator[Client]:
    """A client of the notifier that find_notifier() finds."""
    address, api_key = find_notifier(home)
    async with open_channel(address, list(pb.DESCRIPTOR.services_by_name.values())) as channel:
        yield Client(notifier_pb2_grpc.NotifierServiceStub(channel), api_key)
