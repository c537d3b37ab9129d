"""What usage was read for an invoice: kept, so that the events behind a line are known for ever.

Pure.
"""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Counted:
    """Which batches of ingest figures hold: all that were accepted before `before`, and of the
    others those with `batch_ids`, 16 bytes each.
    """

    before: datetime
    batch_ids: bytes = b""


@dataclass(frozen=True, slots=True)
class UsageReading:
    """One answer of aggregator, which several invoices may have been made from."""

    id: str
    counted: Counted
