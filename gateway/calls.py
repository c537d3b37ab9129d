"""Calls to the services: deadlines, metadata, and errors as domain errors."""

from collections.abc import Sequence
from typing import Final, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from litestar.di import NamedDependency
from pydantic import SecretStr
from usageflow.accounts.v1 import accounts_pb2, accounts_pb2_grpc
from usageflow.aggregator.v1 import aggregator_pb2, aggregator_pb2_grpc
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from usageflow.invoicer.v1 import invoicer_pb2, invoicer_pb2_grpc
from usageflow.notifier.v1 import notifier_pb2, notifier_pb2_grpc

from gateway.settings import GatewaySettings
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import (
    DEADLINE_S,
    Metadata,
    api_key_metadata,
    internal_metadata,
    open_channel,
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
CLOSE_S: Final = 1.0


class Channels:
    """One channel to each service."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.accounts = open_channel(
            settings.accounts_address, list(accounts_pb2.DESCRIPTOR.services_by_name.values())
        )
        self.ingest = open_channel(
            settings.ingest_address, list(ingest_pb2.DESCRIPTOR.services_by_name.values())
        )
        self.aggregator = open_channel(
            settings.aggregator_address, list(aggregator_pb2.DESCRIPTOR.services_by_name.values())
        )
        self.invoicer = open_channel(
            settings.invoicer_address, list(invoicer_pb2.DESCRIPTOR.services_by_name.values())
        )
        self.notifier = open_channel(
            settings.notifier_address, list(notifier_pb2.DESCRIPTOR.services_by_name.values())
        )

    async def close(self) -> None:
        """Finish what is running and close all."""
        for channel in (
            self.accounts,
            self.ingest,
            self.aggregator,
            self.invoicer,
            self.notifier,
        ):
            await channel.close(CLOSE_S)


class Services:
    """The services as callers with an API key see them."""

    def __init__(self, channels: Channels) -> None:
        self.accounts = accounts_pb2_grpc.AccountsServiceStub(channels.accounts)
        self.ingest = ingest_pb2_grpc.IngestServiceStub(channels.ingest)
        self.aggregator = aggregator_pb2_grpc.AggregatorServiceStub(channels.aggregator)
        self.invoicer = invoicer_pb2_grpc.InvoicerServiceStub(channels.invoicer)
        self.notifier = notifier_pb2_grpc.NotifierServiceStub(channels.notifier)


class Calls:
    """Calls in the name of one API key: the services check it and its scopes themselves."""

    def __init__(self, services: Services, secret: str) -> None:
        self.accounts = services.accounts
        self.ingest = services.ingest
        self.aggregator = services.aggregator
        self.invoicer = services.invoicer
        self.notifier = services.notifier
        self._secret = secret

    async def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request
    ) -> Response:
        """The service's answer; DomainError when it refuses or is away."""
        return await _answer(method, request, DEADLINE_S, api_key_metadata(self._secret))


# What the framework gives to a route.
ApiCalls: TypeAlias = NamedDependency[Calls]


class IngestSink:
    """Ingest as the coalescer sees it."""

    def __init__(self, channels: Channels, internal_token: SecretStr) -> None:
        self._ingest = ingest_pb2_grpc.IngestInternalServiceStub(channels.ingest)
        self._token = internal_token

    async def record(
        self, request: ingest_pb2.RecordTenantEventsRequest, timeout_s: float
    ) -> Sequence[ingest_pb2.EventReceipt]:
        """A receipt for each event, in order; DomainError: what became of them is unknown."""
        response = await _answer(
            self._ingest.RecordTenantEvents, request, timeout_s, internal_metadata(self._token)
        )
        return response.receipts


async def _answer(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    timeout_s: float,
    metadata: Metadata,
) -> Response:
    try:
        return await method(request, timeout=timeout_s, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
