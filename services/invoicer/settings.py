"""Settings of invoicer, read from `USAGEFLOW_*` environment variables."""

from datetime import timedelta
from typing import Final

from pydantic import Field

from services.kit.events import PAST_DAYS_MAX
from services.kit.settings import ServiceSettings

DAY_S = 86_400
# How long before a period earlier ones may have ended to be looked at again: as long as any
# organization may let its events be late, for what was let in then has to be billed also after
# the organization has changed its mind. So it is no setting (docs/adr/0006-late-usage.md).
LATE: Final = timedelta(days=PAST_DAYS_MAX)


class InvoicerSettings(ServiceSettings):
    """What invoicer needs besides what every service needs."""

    database_pool_size: int = Field(default=8, ge=2, le=50)
    aggregator_address: str = Field(description="host:port of aggregator")
    aggregator_timeout_s: float = Field(default=10.0, gt=0, le=60)
    ingest_address: str = Field(description="host:port of ingest")
    ingest_timeout_s: float = Field(default=30.0, gt=0, le=120)
    ingest_stream_timeout_s: float = Field(
        default=600.0, gt=0, le=3_600, description="to read the events of one customer's period"
    )
    invoice_grace_s: int = Field(
        default=3600, ge=0, le=35 * DAY_S, description="how long a period that is over waits"
    )
    invoice_late_quiet_s: int = Field(
        default=35 * DAY_S,
        ge=900,
        le=PAST_DAYS_MAX * DAY_S,
        description="how long after its end a subscription waits for late usage",
    )
    invoice_failures_max: int = Field(
        default=3, ge=1, le=100, description="failed payments until the subscription is suspended"
    )
    invoice_poll_s: float = Field(default=1.0, gt=0, le=60, description="between looks for work")
    invoice_retry_s: float = Field(
        default=2.0, gt=0, le=600, description="until a period that must wait is tried again"
    )
    invoice_lease_s: float = Field(
        default=60.0, gt=0, le=600, description="how long a replica keeps others off its chunk"
    )
    invoice_chunk_max: int = Field(default=200, ge=1, le=1000, description="periods at once")
    invoice_batch_max: int = Field(
        default=25, ge=1, le=200, description="invoices of one tenant in one transaction"
    )
    credits_poll_s: float = Field(
        default=5.0, gt=0, le=600, description="between looks for credits that have expired"
    )
    invoice_writers_max: int = Field(default=4, ge=1, le=20, description="transactions at once")
