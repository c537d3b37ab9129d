"""Calls to the services: deadlines, metadata, and errors as domain errors."""

from typing import Final, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from litestar.di import NamedDependency
from pydantic import SecretStr
from usageflow.accounts.v1 import (
    accounts_pb2,
    accounts_pb2_grpc,
    members_pb2,
    members_pb2_grpc,
    portal_pb2,
    portal_pb2_grpc,
)
from usageflow.aggregator.v1 import (
    aggregator_pb2,
    aggregator_pb2_grpc,
    live_pb2_grpc,
    quotas_pb2,
    quotas_pb2_grpc,
)
from usageflow.ingest.v1 import ingest_pb2, ingest_pb2_grpc
from usageflow.invoicer.v1 import (
    billing_settings_pb2,
    billing_settings_pb2_grpc,
    billing_terms_pb2,
    billing_terms_pb2_grpc,
    budgets_pb2,
    budgets_pb2_grpc,
    credits_pb2,
    credits_pb2_grpc,
    documents_pb2,
    documents_pb2_grpc,
    invoicer_pb2,
    invoicer_pb2_grpc,
    payments_pb2,
    payments_pb2_grpc,
    simulation_pb2,
    simulation_pb2_grpc,
    subscription_changes_pb2,
    subscription_changes_pb2_grpc,
    test_clocks_pb2,
    test_clocks_pb2_grpc,
)
from usageflow.notifier.v1 import notifier_pb2, notifier_pb2_grpc

from gateway.settings import GatewaySettings
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import (
    DEADLINE_S,
    IDEMPOTENCY_HEADER,
    REPLAYED_HEADER,
    Metadata,
    caller_metadata,
    internal_metadata,
    open_channel,
)
from services.kit.http2 import client as http2_client

Request = TypeVar("Request", bound=Message | bytes)
Response = TypeVar("Response", bound=Message)
CLOSE_S: Final = 1.0


class Channels:
    """One channel to each service."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.accounts = open_channel(
            settings.accounts_address,
            [
                *accounts_pb2.DESCRIPTOR.services_by_name.values(),
                *members_pb2.DESCRIPTOR.services_by_name.values(),
                *portal_pb2.DESCRIPTOR.services_by_name.values(),
            ],
        )
        self.ingest = open_channel(
            settings.ingest_address, list(ingest_pb2.DESCRIPTOR.services_by_name.values())
        )
        # For what all events go by.
        self.events = http2_client.Channel(settings.ingest_address)
        self.aggregator = open_channel(
            settings.aggregator_address,
            [
                *aggregator_pb2.DESCRIPTOR.services_by_name.values(),
                *quotas_pb2.DESCRIPTOR.services_by_name.values(),
            ],
        )
        self.invoicer = open_channel(
            settings.invoicer_address,
            [
                *invoicer_pb2.DESCRIPTOR.services_by_name.values(),
                *billing_settings_pb2.DESCRIPTOR.services_by_name.values(),
                *billing_terms_pb2.DESCRIPTOR.services_by_name.values(),
                *budgets_pb2.DESCRIPTOR.services_by_name.values(),
                *credits_pb2.DESCRIPTOR.services_by_name.values(),
                *documents_pb2.DESCRIPTOR.services_by_name.values(),
                *simulation_pb2.DESCRIPTOR.services_by_name.values(),
                *payments_pb2.DESCRIPTOR.services_by_name.values(),
                *subscription_changes_pb2.DESCRIPTOR.services_by_name.values(),
                *test_clocks_pb2.DESCRIPTOR.services_by_name.values(),
            ],
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
        await self.events.close()


class Services:
    """The services as callers with an API key or a session see them."""

    def __init__(self, channels: Channels) -> None:
        self.accounts = accounts_pb2_grpc.AccountsServiceStub(channels.accounts)
        self.members = members_pb2_grpc.MembersServiceStub(channels.accounts)
        self.portal = portal_pb2_grpc.PortalServiceStub(channels.accounts)
        self.ingest = ingest_pb2_grpc.IngestServiceStub(channels.ingest)
        self.aggregator = aggregator_pb2_grpc.AggregatorServiceStub(channels.aggregator)
        self.live = live_pb2_grpc.LiveUsageServiceStub(channels.aggregator)
        self.quotas = quotas_pb2_grpc.QuotaServiceStub(channels.aggregator)
        self.invoicer = invoicer_pb2_grpc.InvoicerServiceStub(channels.invoicer)
        self.terms = billing_terms_pb2_grpc.BillingTermsServiceStub(channels.invoicer)
        self.budgets = budgets_pb2_grpc.BudgetsServiceStub(channels.invoicer)
        self.prepaid = credits_pb2_grpc.CreditsServiceStub(channels.invoicer)
        self.changes = subscription_changes_pb2_grpc.SubscriptionChangesServiceStub(
            channels.invoicer
        )
        self.settings = billing_settings_pb2_grpc.BillingSettingsServiceStub(channels.invoicer)
        self.simulations = simulation_pb2_grpc.SimulationServiceStub(channels.invoicer)
        self.clocks = test_clocks_pb2_grpc.TestClocksServiceStub(channels.invoicer)
        self.payments = payments_pb2_grpc.PaymentsServiceStub(channels.invoicer)
        self.documents = documents_pb2_grpc.DocumentsServiceStub(channels.invoicer)
        self.notifier = notifier_pb2_grpc.NotifierServiceStub(channels.notifier)


class Calls:
    """Calls in the name of an API key or of a member: the services check themselves who that is and
    what they may do. `credential` is the key, or that of a sessions.Viewer.
    """

    def __init__(
        self,
        services: Services,
        credential: str,
        idempotency_key: str = "",
        forwarded: Metadata = (),
    ) -> None:
        """`idempotency_key` goes along with each call; what only reads takes no notice of it.
        `forwarded` tells from where the caller asks, where that matters.
        """
        self.accounts = services.accounts
        self.members = services.members
        self.portal = services.portal
        self.ingest = services.ingest
        self.aggregator = services.aggregator
        self.live = services.live
        self.quotas = services.quotas
        self.invoicer = services.invoicer
        self.terms = services.terms
        self.budgets = services.budgets
        self.prepaid = services.prepaid
        self.changes = services.changes
        self.settings = services.settings
        self.simulations = services.simulations
        self.clocks = services.clocks
        self.payments = services.payments
        self.documents = services.documents
        self.notifier = services.notifier
        self._services = services
        self._credential = credential
        self._idempotency_key = idempotency_key
        self._forwarded = forwarded
        # Whether an answer was that of an earlier call with the same key.
        self.replayed = False

    def once(self, idempotency_key: str) -> "Calls":
        """The same with a key."""
        return Calls(self._services, self._credential, idempotency_key)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout_s: float = DEADLINE_S,
    ) -> Response:
        """The service's answer; DomainError when it refuses or is away."""
        metadata = self._metadata()
        if not self._idempotency_key:
            return await answer_of(method, request, timeout_s, metadata)
        return await self._call_once(method, request, timeout_s, metadata)

    async def _call_once(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout_s: float,
        metadata: Metadata,
    ) -> Response:
        """With the idempotency key."""
        keyed = (*metadata, (IDEMPOTENCY_HEADER, self._idempotency_key))
        call = method(request, timeout=timeout_s, metadata=keyed)
        try:
            answer = await call
            trailing = dict(await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        self.replayed = self.replayed or trailing.get(REPLAYED_HEADER) == "true"
        return answer

    def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        timeout_s: float,
    ) -> grpc.aio.UnaryStreamCall[Request, Response]:
        """The service's answers, to be read; grpc.aio.AioRpcError when it refuses or ends."""
        return method(request, timeout=timeout_s, metadata=self._metadata())

    def _metadata(self) -> Metadata:
        return (*caller_metadata(self._credential), *self._forwarded)


# What the framework gives to a route.
ApiCalls: TypeAlias = NamedDependency[Calls]


class IngestSink:
    """Ingest as the coalescer sees it."""

    def __init__(self, channels: Channels, internal_token: SecretStr) -> None:
        service = ingest_pb2.DESCRIPTOR.services_by_name["IngestInternalService"]
        self._method = f"/{service.full_name}/RecordTenantEvents"
        self._events = channels.events
        self._token = internal_token

    async def record(
        self, request: bytes, timeout_s: float
    ) -> ingest_pb2.RecordTenantEventsResponse:
        """The answer to an encoded RecordTenantEventsRequest; DomainError: what became of its
        events is unknown.
        """
        metadata = internal_metadata(self._token)
        try:
            answer = await self._events.call(self._method, request, timeout_s, metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        return ingest_pb2.RecordTenantEventsResponse.FromString(answer)


async def answer_of(
    method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
    request: Request,
    timeout_s: float,
    metadata: Metadata,
) -> Response:
    """The service's answer; DomainError when it refuses or is away."""
    try:
        return await method(request, timeout=timeout_s, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
