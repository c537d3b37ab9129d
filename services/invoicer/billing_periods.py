"""Into which periods a subscription's time is cut. Pure."""

from collections.abc import Iterator
from datetime import datetime

from services.invoicer.domain import Subscription
from services.invoicer.periods import Period


def periods_between(subscription: Subscription, start: datetime, end: datetime) -> Iterator[Period]:
    """The periods that lie, in part at least, in [start, end), oldest first; they abut.

    Plans, trials and pauses cut periods: each part is one of its own, as it is for invoices.
    """
    part = subscription.part_from(subscription.start_time)
    while part is not None and part.start < end:
        if part.end > start:
            yield part
        part = subscription.part_from(part.end)
