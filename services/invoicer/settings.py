"""Settings of invoicer, read from `USAGEFLOW_*` environment variables."""

from datetime import timedelta
from typing import Annotated, Final, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from services.invoicer.billing_settings import check_retry_days
from services.invoicer.payments.domain import RETRY_DAYS_DEFAULT
from services.kit.errors import FieldChecks
from services.kit.events import PAST_DAYS_MAX
from services.kit.settings import SECRET_CHARS_MIN, ServiceSettings

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
    payment_retry_days: Annotated[tuple[int, ...], NoDecode] = Field(
        default=RETRY_DAYS_DEFAULT,
        description="days after the first failure on which a payment is tried again, with commas"
        " between; where an organization has not decided",
    )
    payment_secrets_key: SecretStr = Field(
        default=SecretStr(""),
        description="key under which organizations' keys of their payment providers are stored,"
        " >= 32 characters; older ones after it, with commas between, are only read with; empty:"
        " there can't be any",
    )
    payment_timeout_s: float = Field(default=30.0, gt=0, le=120, description="a call to a provider")
    payment_lease_s: float = Field(
        default=120.0, gt=0, le=600, description="how long a replica keeps others off an invoice"
    )
    payment_batch_max: int = Field(
        default=8, ge=1, le=100, description="invoices collected at once"
    )
    stripe_api_base: str = Field(default="", description="in place of Stripe's own, in tests")
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
    budget_check_s: float = Field(
        default=60.0,
        gt=0,
        le=3_600,
        description="between looks at what a subscription with a budget comes to",
    )
    invoice_writers_max: int = Field(default=4, ge=1, le=20, description="transactions at once")

    @property
    def payment_secrets_keys(self) -> list[str]:
        """The keys in payment_secrets_key: the first seals, all open."""
        text = self.payment_secrets_key.get_secret_value()
        return [key.strip() for key in text.split(",")] if text else []

    @field_validator("payment_retry_days", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) and value else value or ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        checks = FieldChecks()
        check_retry_days(checks, self.payment_retry_days)
        if checks.problems:
            raise ValueError(f"payment retry days {checks.problems[0].message}")
        if any(len(key) < SECRET_CHARS_MIN for key in self.payment_secrets_keys):
            raise ValueError(f"payment secrets keys must have {SECRET_CHARS_MIN} characters each")
        if self.payment_lease_s < 2 * self.payment_timeout_s:
            raise ValueError("a lease must last for at least two calls to a provider")
        return self
