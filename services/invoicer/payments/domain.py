"""Attempts to have an invoice paid, and when the next one is due. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

# Days after the first failure.
RETRY_DAYS_DEFAULT = (1, 3, 5, 7)
RETRIES_MAX = 10
RETRY_DAY_MAX = 60
REFERENCE_CHARS_MAX = 200
MESSAGE_CHARS_MAX = 500


class ProviderName(StrEnum):
    """Who collects: MANUAL: the organization itself, and tells; STRIPE: UsageFlow, by Stripe."""

    MANUAL = "MANUAL"
    STRIPE = "STRIPE"


class AttemptState(StrEnum):
    """PENDING: begun, and what came of it is not known yet."""

    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class PaymentMethod:
    """A customer as a provider knows them, and what of theirs is charged."""

    provider: ProviderName
    provider_customer: str
    provider_method: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to have an invoice paid, from 1; once it has ended it never changes.

    `reference` is the provider's, or what the organization told. `method` is None for what was
    told. Times are the customer's, who may be on a test clock; `real_start_time` is what it was for
    everybody else, the provider too.
    """

    invoice_id: str
    number: int
    provider: ProviderName
    method: PaymentMethod | None
    amount: Decimal
    currency: str
    state: AttemptState
    reference: str
    error_code: str
    error_message: str
    start_time: datetime
    end_time: datetime | None
    real_start_time: datetime

    @property
    def key(self) -> str:
        """What names the attempt to the provider, however often it is sent."""
        return f"usageflow-{self.invoice_id}-{self.number}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a provider says of an attempt. PENDING: accepted, and decided later."""

    state: AttemptState
    reference: str = ""
    error_code: str = ""
    error_message: str = ""


def next_attempt_time(
    first_failure: datetime, failures: int, retry_days: Sequence[int], now: datetime
) -> datetime | None:
    """When it is tried again after so many failures; None: not any more."""
    if failures > len(retry_days):
        return None
    return max(first_failure + timedelta(days=retry_days[failures - 1]), now)


def is_exhausted(failures: int, retry_days: Sequence[int]) -> bool:
    """Whether the last payment that is tolerated has failed."""
    return failures > len(retry_days)
