"""Translates between proto and domain; decides nothing but who may call."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.notifier.v1 import notifier_pb2 as pb
from usageflow.notifier.v1.notifier_pb2_grpc import NotifierServiceServicer

from services.kit.auth import require_scope
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.etag import expecting, tagged
from services.notifier.deliveries import ALL, FAILED, MISSED, Deliveries
from services.notifier.domain import (
    Attempt,
    Delivery,
    DeliveryFilter,
    Endpoint,
    EndpointChange,
    NewEndpoint,
)
from services.notifier.listening import Listened, Listening
from services.notifier.service import Notifier
from services.notifier.signing import ED25519, HMAC, format_public_key

_STATUSES = {
    pb.DELIVERY_STATUS_PENDING: "pending",
    pb.DELIVERY_STATUS_SUCCEEDED: "succeeded",
    pb.DELIVERY_STATUS_FAILED: "failed",
}
_KINDS = {
    pb.SIGNATURE_KIND_UNSPECIFIED: "",
    pb.SIGNATURE_KIND_HMAC_SHA256: HMAC,
    pb.SIGNATURE_KIND_ED25519: ED25519,
}
_KIND_NUMBERS = {name: number for number, name in _KINDS.items()}
_REASON_NUMBERS = {
    "": pb.DISABLED_REASON_UNSPECIFIED,
    "requested": pb.DISABLED_REASON_REQUESTED,
    "failing": pb.DISABLED_REASON_FAILING,
    "gone": pb.DISABLED_REASON_GONE,
}
_SCOPES = {
    pb.REPLAY_SCOPE_UNSPECIFIED: FAILED,
    pb.REPLAY_SCOPE_FAILED: FAILED,
    pb.REPLAY_SCOPE_ALL: ALL,
    pb.REPLAY_SCOPE_MISSED: MISSED,
}
_STATUS_NUMBERS = {name: number for number, name in _STATUSES.items()}


class NotifierServicer(NotifierServiceServicer):
    """Webhook endpoints and deliveries of the caller's organization and mode."""

    def __init__(self, notifier: Notifier, deliveries: Deliveries, listening: Listening) -> None:
        self._notifier = notifier
        self._deliveries = deliveries
        self._listening = listening

    async def CreateEndpoint(
        self, request: pb.CreateEndpointRequest, context: object
    ) -> pb.CreateEndpointResponse:
        """Register an endpoint; scope admin."""
        principal = require_scope("admin")
        new = NewEndpoint(
            url=request.url,
            event_types=list(request.event_types),
            description=request.description,
            rate_limit=request.rate_limit,
            headers=dict(request.headers),
            signature_kind=_kind(request.signature_kind),
            secret=request.secret,
        )
        endpoint, secret = await self._notifier.create_endpoint(
            principal.tenant, new, by_key=principal.actor_id
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

    async def UpdateEndpoint(
        self, request: pb.UpdateEndpointRequest, context: object
    ) -> pb.UpdateEndpointResponse:
        """Change an endpoint; scope admin."""
        principal = require_scope("admin")
        change = EndpointChange(
            url=_given(request, "url"),
            event_types=(
                list(request.event_types.values) if request.HasField("event_types") else None
            ),
            description=_given(request, "description"),
            enabled=_given(request, "enabled"),
            rate_limit=_given(request, "rate_limit"),
            headers=dict(request.headers.values) if request.HasField("headers") else None,
        )
        endpoint = await self._notifier.update_endpoint(
            principal.tenant,
            request.endpoint_id,
            change,
            by_key=principal.actor_id,
            expect=expecting(request.if_match, _endpoint),
        )
        return pb.UpdateEndpointResponse(endpoint=_endpoint(endpoint))

    async def DeleteEndpoint(
        self, request: pb.DeleteEndpointRequest, context: object
    ) -> pb.DeleteEndpointResponse:
        """End an endpoint; scope admin."""
        principal = require_scope("admin")
        await self._notifier.delete_endpoint(
            principal.tenant,
            request.endpoint_id,
            by_key=principal.actor_id,
            expect=expecting(request.if_match, _endpoint),
        )
        return pb.DeleteEndpointResponse()

    async def RotateEndpointSecret(
        self, request: pb.RotateEndpointSecretRequest, context: object
    ) -> pb.RotateEndpointSecretResponse:
        """A new secret, shown once; scope admin."""
        principal = require_scope("admin")
        key = await self._notifier.rotate_secret(
            principal.tenant,
            request.endpoint_id,
            _kind(request.signature_kind),
            request.secret,
            by_key=principal.actor_id,
        )
        return pb.RotateEndpointSecretResponse(
            secret=key.secret, public_key=format_public_key(key.public_key)
        )

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
        deliveries, next_page_token = await self._deliveries.list(
            tenant, _filter(request), request.page_size, request.page_token
        )
        return pb.ListDeliveriesResponse(
            deliveries=[_delivery(delivery) for delivery in deliveries],
            next_page_token=next_page_token,
        )

    async def GetEndpointStats(
        self, request: pb.GetEndpointStatsRequest, context: object
    ) -> pb.GetEndpointStatsResponse:
        """How an endpoint is doing; scope read."""
        tenant = require_scope("read").tenant
        stats = await self._deliveries.stats(tenant, request.endpoint_id, *_times(request))
        return pb.GetEndpointStatsResponse(
            pending=stats.statuses.get("pending", 0),
            succeeded=stats.statuses.get("succeeded", 0),
            failed=stats.statuses.get("failed", 0),
            oldest_pending_time=_timestamp(stats.oldest_pending_time),
            attempts=[
                pb.AttemptCount(error=error, count=count)
                for error, count in sorted(stats.attempts.items())
            ],
            duration_p50_ms=stats.duration_p50_ms,
            duration_p95_ms=stats.duration_p95_ms,
        )

    async def GetDelivery(
        self, request: pb.GetDeliveryRequest, context: object
    ) -> pb.GetDeliveryResponse:
        """One delivery with its payload and attempts; scope read."""
        tenant = require_scope("read").tenant
        delivery = await self._deliveries.get(tenant, request.delivery_id)
        return pb.GetDeliveryResponse(delivery=_delivery(delivery))

    async def ReplayDeliveries(
        self, request: pb.ReplayDeliveriesRequest, context: object
    ) -> pb.ReplayDeliveriesResponse:
        """Send many deliveries again; scope admin."""
        tenant = require_scope("admin").tenant
        scope = _SCOPES.get(request.scope)
        if scope is None:
            raise InvalidArgumentError([FieldProblem("scope", "must be FAILED, ALL or MISSED")])
        replayed, next_page_token = await self._deliveries.replay_many(
            tenant, request.endpoint_id, scope, *_times(request), request.page_token
        )
        return pb.ReplayDeliveriesResponse(replayed=replayed, next_page_token=next_page_token)

    async def ListenEvents(
        self, request: pb.ListenEventsRequest, context: object
    ) -> AsyncIterator[pb.ListenEventsResponse]:
        """The events of a test-mode organization as they come; scope admin."""
        tenant = require_scope("admin").tenant
        async for item in self._listening.listen(tenant, list(request.event_types)):
            if isinstance(item, str):
                yield pb.ListenEventsResponse(secret=item)
            elif item is None:
                yield pb.ListenEventsResponse()
            else:
                yield pb.ListenEventsResponse(event=_listened(item))

    async def ReplayDelivery(
        self, request: pb.ReplayDeliveryRequest, context: object
    ) -> pb.ReplayDeliveryResponse:
        """Send a delivery again; scope admin."""
        tenant = require_scope("admin").tenant
        delivery = await self._deliveries.replay(tenant, request.delivery_id)
        return pb.ReplayDeliveryResponse(delivery=_delivery(delivery))


def _status(request: pb.ListDeliveriesRequest) -> str | None:
    if request.status == pb.DELIVERY_STATUS_UNSPECIFIED:
        return None
    name = _STATUSES.get(request.status)
    if name is None:
        allowed = ", ".join(status.upper() for status in _STATUSES.values())
        raise InvalidArgumentError([FieldProblem("status", f"must be one of {allowed}")])
    return name


def _kind(number: pb.SignatureKind.ValueType) -> str:
    kind = _KINDS.get(number)
    if kind is None:
        raise InvalidArgumentError([FieldProblem("signature", "must be HMAC_SHA256 or ED25519")])
    return kind


def _given(request: Message, name: str) -> Any:
    """The value of an optional field; None when it was not sent."""
    return getattr(request, name) if request.HasField(name) else None


def _filter(request: pb.ListDeliveriesRequest) -> DeliveryFilter:
    from_time, to_time = _times(request)
    return DeliveryFilter(
        endpoint_id=request.endpoint_id,
        status=_status(request),
        event_type=request.event_type,
        from_time=from_time,
        to_time=to_time,
    )


def _times(
    request: pb.ListDeliveriesRequest | pb.GetEndpointStatsRequest | pb.ReplayDeliveriesRequest,
) -> tuple[datetime | None, datetime | None]:
    """from_time and to_time; None when they were not sent."""
    start = request.from_time.ToDatetime(UTC) if request.HasField("from_time") else None
    end = request.to_time.ToDatetime(UTC) if request.HasField("to_time") else None
    return start, end


def _listened(item: Listened) -> pb.ListenedEvent:
    return pb.ListenedEvent(
        id=item.event.id,
        type=item.event.type,
        timestamp=item.timestamp_s,
        signature=item.signature,
        body=item.event.body,
    )


def _endpoint(endpoint: Endpoint) -> pb.Endpoint:
    message = pb.Endpoint(
        id=endpoint.id,
        url=endpoint.url,
        event_types=endpoint.event_types,
        description=endpoint.description,
        enabled=endpoint.enabled,
        create_time=_timestamp(endpoint.create_time),
        rate_limit=endpoint.rate_limit,
        header_names=endpoint.header_names,
        signature_kind=_KIND_NUMBERS[endpoint.signature_kind],
        public_key=format_public_key(endpoint.public_key),
        disabled_reason=_REASON_NUMBERS[endpoint.disabled_reason],
        disable_time=_timestamp(endpoint.disable_time),
        failing_since_time=_timestamp(endpoint.failing_since),
        throttled_until_time=_timestamp(endpoint.throttle_until),
    )
    return tagged(message)


def _delivery(delivery: Delivery) -> pb.Delivery:
    return pb.Delivery(
        id=delivery.id,
        event_id=delivery.event_id,
        endpoint_id=delivery.endpoint_id,
        event_type=delivery.event_type,
        # Those that were dropped with their endpoint have failed too.
        status=_STATUS_NUMBERS.get(delivery.status, pb.DELIVERY_STATUS_FAILED),
        next_attempt_time=_timestamp(delivery.next_attempt_time),
        attempts=[_attempt(attempt) for attempt in delivery.attempts],
        create_time=_timestamp(delivery.create_time),
        payload_json=delivery.payload.decode(),
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
