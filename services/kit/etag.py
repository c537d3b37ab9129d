"""Entity tags: whether a resource is still what its caller has seen (RFC 9110, 8.8.3 and 13.1.1).

A tag is made of everything that the resource's message shows, so it is a strong validator: when
anything in the answer differs the tag does. The comparison takes place in the service, in the
transaction that changes the resource, on the row that this transaction has locked.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias, TypeVar

from services.kit.errors import StaleError

TAG_BYTES: Final = 15
ANY: Final = "*"


class Tagged(Protocol):
    """A generated message with a field `etag`."""

    etag: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:  # noqa: N802 (protobuf)
        """Its bytes."""


Message = TypeVar("Message", bound=Tagged)
Resource = TypeVar("Resource")
# Called with the resource as it is now, locked; None: there is none. StaleError: it has changed.
Expectation: TypeAlias = Callable[[Resource | None], None]


def tagged(message: Message) -> Message:
    """The message with its tag in it."""
    message.etag = ""
    digest = hashlib.sha256(message.SerializeToString(deterministic=True)).digest()
    message.etag = base64.urlsafe_b64encode(digest[:TAG_BYTES]).decode()
    return message


def expecting(
    if_match: Sequence[str], to_message: Callable[[Resource], Tagged]
) -> Expectation[Resource] | None:
    """What holds for a request with these tags; None when it has none: whatever is there is fine.

    "*" expects only that the resource is there.
    """
    if not if_match:
        return None

    def expect(found: Resource | None) -> None:
        if found is None or (ANY not in if_match and to_message(found).etag not in if_match):
            raise StaleError("It has changed since you read it: read it again, then change that")

    return expect
