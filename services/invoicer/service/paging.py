"""Pages of lists, newest first."""

from dataclasses import dataclass
from datetime import datetime

from services.invoicer.checks import is_customer_id
from services.kit import pages
from services.kit.ids import is_id


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: 1-100 entries (0: 20), after the page that gave `token`."""

    size: int = 0
    token: str = ""


def id_position(token: str, prefix: str) -> str | None:
    """The id that a page begins after; None for the first page."""
    if not token:
        return None
    (last_id,) = pages.decode_token(token, 1)
    if not is_id(last_id, prefix):
        raise pages.invalid_token()
    return last_id


def customer_position(token: str) -> tuple[datetime, str] | None:
    """When the customer that a page begins after was made, and its id; None for the first page."""
    if not token:
        return None
    create_time, customer_id = pages.decode_token(token, 2)
    try:
        time = datetime.fromisoformat(create_time)
    except ValueError:
        raise pages.invalid_token() from None
    if time.tzinfo is None or not is_customer_id(customer_id):
        raise pages.invalid_token()
    return time, customer_id


def next_token(ids: list[str], limit: int) -> str:
    """The token of the page after `limit` entries; "" when there are no more."""
    return pages.encode_token(ids[limit - 1]) if len(ids) > limit else ""
