"""Translates between proto and domain; decides nothing but who may call."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.notifier.v1 import notifier_pb2 as pb
from usageflow.notifier.v1.notifier_pb2_grpc import NotifierServiceServicer

from services.kit.auth import require_scope
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.notifier.domain import Attempt, Delivery, Endpoint
from services.notifier.service import Notifier

_STATUSES = {
    pb.DELIVERY_STATUS_PENDING: "pending",
    pb.DELIVERY_STATUS_SUCCEEDED: "succeeded",
    pb.DELIVERY_STATUS_FAILED: "failed",
}
_STATUS_NUMBERS = {name: number for number, name in _STATUSES.items()}


class NotifierServicer(NotifierServiceServicer):
    """Webhook endpoints and deliveries of the caller's organization and mode."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier

    async def CreateEndpoint(
        self, request: pb.CreateEndpointRequest, context: object
    ) -> pb.CreateEndpointResponse:
        """Register an endpoint; scope admin."""
        tenant = require_scope("admin").tenant
        endpoint, secret = await self._notifier.create_endpoint(
            tenant, request.url, list(request.event_types), request.description
        )
        return pb.CreateEndpointResponse(endpoint=_endpoint(endpoint), secret=secret)

    async def GetEndpoint(
        self, request: pb.GetEndpointRequest, context: object
    ) -> pb.GetEndpointResponse:
        """One endpoint; scope read."""
        tenant = require_scope("read").tenant
        endpoint = await self._notifier.get_endpoint(tenant, request.endpoint_id)
        return pb.GetEndpointResponse(endpoint=_endpoint(endpoint))

    async def ListEndpoints(
        self, request: pb.ListEndpointsRequest, context: object
    ) -> pb.ListEndpointsResponse:
        """A page of endpoints; scope read."""
        tenant = require_scope("read").tenant
        endpoints, next_page_token = await self._notifier.list_endpoints(
            tenant, request.page_size, request.page_token
        )
        return pb.ListEndpointsResponse(
            endpoints=[_endpoint(endpoint) for endpoint in endpoints],
            next_page_token=next_page_token,
        )

    async def DeleteEndpoint(
        self, request: pb.DeleteEndpointRequest, context: object
    ) -> pb.DeleteEndpointResponse:
        """End an endpoint; scope admin."""
        tenant = require_scope("admin").tenant
        await self._notifier.delete_endpoint(tenant, request.endpoint_id)
        return pb.DeleteEndpointResponse()

    async def RotateEndpointSecret(
        self, request: pb.RotateEndpointSecretRequest, context: object
    ) -> pb.RotateEndpointSecretResponse:
        """A new secret, shown once; scope admin."""
        tenant = require_scope("admin").tenant
        secret = await self._notifier.rotate_secret(tenant, request.endpoint_id)
        return pb.RotateEndpointSecretResponse(secret=secret)

    async def TestEndpoint(
        self, request: pb.TestEndpointRequest, context: object
    ) -> pb.TestEndpointResponse:
        """Send a test event to one endpoint; scope admin."""
        tenant = require_scope("admin").tenant
        delivery = await self._notifier.send_test(tenant, request.endpoint_id)
        return pb.TestEndpointResponse(delivery=_delivery(delivery))

    async def ListDeliveries(
        self, request: pb.ListDeliveriesRequest, context: object
    ) -> pb.ListDeliveriesResponse:
        """A page of an endpoint's deliveries; scope read."""
        tenant = require_scope("read").tenant
        deliveries, next_page_token = await self._notifier.list_deliveries(
            tenant, request.endpoint_id, _status(request), request.page_size, request.page_token
        )
        return pb.ListDeliveriesResponse(
            deliveries=[_delivery(delivery) for delivery in deliveries],
            next_page_token=next_page_token,
        )

    async def ReplayDelivery(
        self, request: pb.ReplayDeliveryRequest, context: object
    ) -> pb.ReplayDeliveryResponse:
        """Send a delivery again; scope admin."""
        tenant = require_scope("admin").tenant
        delivery = await self._notifier.replay_delivery(tenant, request.delivery_id)
        return pb.ReplayDeliveryResponse(delivery=_delivery(delivery))


def _status(request: pb.ListDeliveriesRequest) -> str | None:
    if request.status == pb.DELIVERY_STATUS_UNSPECIFIED:
        return None
    name = _STATUSES.get(request.status)
    if name is None:
        allowed = ", ".join(status.upper() for status in _STATUSES.values())
        raise InvalidArgumentError([FieldProblem("status", f"must be one of {allowed}")])
    return name


def _endpoint(endpoint: Endpoint) -> pb.Endpoint:
    return pb.Endpoint(
        id=endpoint.id,
        url=endpoint.url,
        event_types=endpoint.event_types,
        description=endpoint.description,
        enabled=endpoint.enabled,
        create_time=_timestamp(endpoint.create_time),
    )


def _delivery(delivery: Delivery) -> pb.Delivery:
    return pb.Delivery(
        id=delivery.id,
        event_id=delivery.event_id,
        endpoint_id=delivery.endpoint_id,
        event_type=delivery.event_type,
        # Only a deleted endpoint's deliveries have another status, and those are not shown.
        status=_STATUS_NUMBERS[delivery.status],
        next_attempt_time=_timestamp(delivery.next_attempt_time),
        attempts=[_attempt(attempt) for attempt in delivery.attempts],
        create_time=_timestamp(delivery.create_time),
    )


def _attempt(attempt: Attempt) -> pb.DeliveryAttempt:
    return pb.DeliveryAttempt(
        number=attempt.number,
        start_time=_timestamp(attempt.start_time),
        duration_ms=attempt.duration_ms,
        response_status=attempt.response_status,
        error=attempt.error,
        response_body=attempt.response_body.decode(errors="replace"),
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
