"""What the servicers of accounts share in translating between proto and domain."""

from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.accounts.v1 import accounts_pb2 as pb

from services.accounts.domain import Organization
from services.kit.auth import SCOPE_NAMES
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.etag import tagged

SCOPE_NUMBERS = {name: number for number, name in SCOPE_NAMES.items()}


def organization_message(organization: Organization) -> pb.Organization:
    """The message of an organization, with its entity tag."""
    message = pb.Organization(
        id=organization.id,
        name=organization.name,
        create_time=timestamp(organization.create_time),
        settings=pb.OrganizationSettings(
            event_past_days=organization.settings.event_past_days,
            event_retention_days=organization.settings.event_retention_days,
            strict_metrics=organization.settings.strict_metrics,
            requests_per_second=organization.settings.requests_per_second,
            events_per_second=organization.settings.events_per_second,
        ),
    )
    return tagged(message)


def timestamp(time: datetime | None) -> Timestamp | None:
    """The message of a time; None stays None."""
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def time_of(request: Message, name: str, shown_name: str) -> datetime | None:
    """The time in a field; None when it was not sent."""
    if not request.HasField(name):
        return None
    try:
        time: datetime = getattr(request, name).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        problem = FieldProblem(shown_name, "must be a time of the years 1 to 9999")
        raise InvalidArgumentError([problem]) from None
    return time
