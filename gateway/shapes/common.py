"""What several resources share."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import Meta

from services.kit.pages import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX

Amount = Annotated[
    str, Meta(description="Exact decimal", extra_json_schema={"examples": ["120.00"]})
]
NO_METADATA: Final = msgspec.Raw(b"{}")


PageLimit: TypeAlias = Annotated[
    int, Meta(ge=1, le=PAGE_SIZE_MAX, description="Elements in the page")
]
PageCursor: TypeAlias = Annotated[str, Meta(description="nextCursor of the page before")]


class PageQuery(msgspec.Struct, rename="camel", kw_only=True):
    """Which page of a list, newest first."""

    limit: PageLimit = PAGE_SIZE_DEFAULT
    cursor: PageCursor = ""


def timestamp(time: datetime | None) -> Timestamp | None:
    """The message of a time; None stays None."""
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message


def time_of(message: Timestamp) -> datetime:
    """The time of a message that is always set."""
    return message.ToDatetime(UTC)


def time_or_none(message: Message, field: str) -> datetime | None:
    """The time in a field; None when it is not set."""
    return time_of(getattr(message, field)) if message.HasField(field) else None


def name_of(enum: Any, number: int, prefix: str) -> str:
    """For example "ACTIVE" for SUBSCRIPTION_STATUS_ACTIVE of a generated `enum`.

    A number that is newer than this program stays a number.
    """
    try:
        name: str = enum.Name(number)
        return name.removeprefix(prefix)
    except ValueError:
        return str(number)


def number_of(enum: Any, name: str, prefix: str) -> Any:
    """SUBSCRIPTION_STATUS_ACTIVE for "ACTIVE"."""
    return enum.Value(prefix + name)


def raw_object(json_text: str) -> msgspec.Raw:
    """A JSON object that a service keeps as text, as it is; {} for none."""
    return msgspec.Raw(json_text.encode()) if json_text else NO_METADATA
