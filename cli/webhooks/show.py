"""What `usageflow webhooks` prints of endpoints and deliveries. Pure."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.notifier.v1 import notifier_pb2 as pb

_DELIVERY_STATUS = "DELIVERY_STATUS_"
_DISABLED_REASON = "DISABLED_REASON_"


def endpoint_lines(
    endpoint: pb.Endpoint, stats: pb.GetEndpointStatsResponse, now: datetime
) -> list[str]:
    """An endpoint and how it has been doing."""
    types = " ".join(endpoint.event_types) or "all events"
    lines = [f"{endpoint.id}  {_state(endpoint)}  {endpoint.url}  ({types})"]
    done = stats.succeeded + stats.failed
    rate = f"{100 * stats.succeeded / done:.1f} % arrived" if done else "nothing done"
    parts = [rate, f"{stats.pending} pending"]
    if stats.HasField("oldest_pending_time"):
        parts.append(f"the oldest for {age(stats.oldest_pending_time, now)}")
    if stats.attempts:
        counts = (f"{each.error or 'ok'} {each.count}" for each in stats.attempts)
        parts.append(f"attempts: {', '.join(counts)}")
        parts.append(f"p50 {stats.duration_p50_ms} ms, p95 {stats.duration_p95_ms} ms")
    return [*lines, f"    {'; '.join(parts)}"]


def delivery_line(delivery: pb.Delivery) -> str:
    """A delivery and its last attempt."""
    status = pb.DeliveryStatus.Name(delivery.status).removeprefix(_DELIVERY_STATUS)
    made = delivery.create_time.ToDatetime(UTC).isoformat(timespec="seconds")
    line = f"{made}  {delivery.id}  {status:<9}  {delivery.event_type}  {delivery.endpoint_id}"
    if not delivery.attempts:
        return line
    last = delivery.attempts[-1]
    got = str(last.response_status or "") + (f" {last.error}" if last.error else "")
    return f"{line}  attempt {last.number}: {got.strip()} in {last.duration_ms} ms"


def age(time: Timestamp, now: datetime) -> str:
    """How long ago, for people: "90 s", "12 min", "30 h"."""
    seconds = max(int((now - time.ToDatetime(UTC)).total_seconds()), 0)
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7_200 else f"{seconds // 3_600} h"


def _state(endpoint: pb.Endpoint) -> str:
    if not endpoint.enabled:
        reason = pb.DisabledReason.Name(endpoint.disabled_reason).removeprefix(_DISABLED_REASON)
        return f"disabled ({reason.lower()})"
    if endpoint.HasField("throttled_until_time"):
        return "throttled"
    return "failing" if endpoint.HasField("failing_since_time") else "healthy"
