"""Quotas, how much of them is used, and reservations. Pure."""

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

from services.aggregator import windows
from services.aggregator.domain import (
    CUSTOMER_ID_CHARS_MAX,
    Metric,
    is_customer_id,
    is_metric_key,
)
from services.kit.database import TenantKey
from services.kit.errors import (
    ConflictError,
    FieldChecks,
    FieldProblem,
    InvalidArgumentError,
    PreconditionError,
)
from services.kit.money import EXACT, format_decimal, parse_decimal

HARD, SOFT = "HARD", "SOFT"
ENFORCEMENTS = (HARD, SOFT)
PERIODS = (windows.HOUR, windows.DAY, windows.WEEK, windows.MONTH, windows.TOTAL)
THRESHOLDS_DEFAULT = ("50%", "80%", "100%")
THRESHOLDS_MAX = 10
PERCENT_MAX = 1_000
# Of these, units used and units set aside can be added up.
SUM, COUNT = AGGREGATIONS = ("SUM", "COUNT")

ACTIVE, COMMITTED, RELEASED, EXPIRED = "ACTIVE", "COMMITTED", "RELEASED", "EXPIRED"
TTL_DEFAULT_S = 60
TTL_MAX_S = 86_400
IDEMPOTENCY_KEY_CHARS_MAX = 255
# How far apart the clocks of ingest and aggregator may be: committed units stay set aside until
# what was recorded so long after the commit is counted.
CLOCKS_APART_MAX = timedelta(seconds=2)

_match_percent = re.compile(r"([1-9][0-9]{0,3})%", re.ASCII).fullmatch
_is_idempotency_key = re.compile(r"[\x20-\x7e]{0,255}").fullmatch


class Customer(NamedTuple):
    """A customer's usage of a metric: what quotas limit. `metric` is the metric's key."""

    tenant: TenantKey
    metric: str
    customer_id: str


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """A quota to set. `customer_id` "": of every customer without one; `limit` None: unlimited."""

    metric: str
    customer_id: str = ""
    period: str = windows.MONTH
    limit: Decimal | None = None
    enforcement: str = HARD
    time_zone: str = ""
    thresholds: tuple[str, ...] = THRESHOLDS_DEFAULT


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota as stored. `boundaries`: of a plan's, where the subscription's periods begin and end;
    of others there are none.
    """

    quota_id: str
    settings: QuotaSettings
    create_time: datetime
    update_time: datetime
    boundaries: tuple[datetime, ...] = ()

    def period_at(self, instant: datetime) -> tuple[datetime, datetime] | None:
        """The period that `instant` lies in: [start, end), in UTC. None: of a subscription that
        has none then.
        """
        if self.boundaries:
            after = bisect.bisect_right(self.boundaries, instant)
            within = 0 < after < len(self.boundaries)
            return self.boundaries[after - 1 : after + 1] if within else None  # type: ignore[return-value] # two of them
        zone = ZoneInfo(self.settings.time_zone or "UTC")
        return windows.period_at(instant, self.settings.period, zone)


def threshold_amount(threshold: str, limit: Decimal | None) -> Decimal | None:
    """The usage at which a threshold is reached; None: never, as there is no limit."""
    percent = _match_percent(threshold)
    if percent is None:
        return Decimal(threshold)
    if limit is None:
        return None
    return EXACT.multiply(limit, Decimal(percent[1])).scaleb(-2, EXACT)


@dataclass(frozen=True, slots=True)
class QuotaState:
    """How much of a quota a customer has used in [start, end), and has set aside."""

    quota: Quota
    start: datetime
    end: datetime
    used: Decimal
    reserved: Decimal

    @property
    def remaining(self) -> Decimal | None:
        """What is left, never below 0; None: unlimited."""
        limit = self.quota.settings.limit
        if limit is None:
            return None
        return max(EXACT.subtract(EXACT.subtract(limit, self.used), self.reserved), Decimal(0))

    @property
    def resets_at(self) -> datetime | None:
        """When the quota begins anew; None: never."""
        return None if self.quota.settings.period == windows.TOTAL else self.end

    def allows(self, amount: Decimal) -> bool:
        """Whether the customer may use so much more."""
        limit = self.quota.settings.limit
        if limit is None or self.quota.settings.enforcement == SOFT:
            return True
        return EXACT.add(EXACT.add(self.used, self.reserved), amount) <= limit

    def with_used(self, amount: Decimal) -> "QuotaState":
        """The same with so much more used."""
        used = EXACT.add(self.used, amount)
        return QuotaState(self.quota, self.start, self.end, used, self.reserved)

    def with_reserved(self, amount: Decimal) -> "QuotaState":
        """The same with so much more set aside."""
        reserved = EXACT.add(self.reserved, amount)
        return QuotaState(self.quota, self.start, self.end, self.used, reserved)


def applicable(quotas: Iterable[Quota]) -> list[Quota]:
    """Of a customer's own and the default ones, one for each period: its own where it has one; and
    those of its plans, unless it has any of its own.
    """
    found: dict[str, Quota] = {}
    of_plans: list[Quota] = []
    for quota in quotas:
        if quota.boundaries:
            of_plans.append(quota)
        elif quota.settings.period not in found or quota.settings.customer_id:
            found[quota.settings.period] = quota
    is_set = any(quota.settings.customer_id for quota in found.values())
    return [*found.values(), *([] if is_set else of_plans)]


def tightest_first(states: Iterable[QuotaState]) -> list[QuotaState]:
    """Hard before soft, the least left first, unlimited ones last."""

    def tightness(state: QuotaState) -> tuple[bool, bool, Decimal, str]:
        remaining = state.remaining
        soft = state.quota.settings.enforcement == SOFT
        return remaining is None, soft, remaining or Decimal(0), state.quota.quota_id

    return sorted(states, key=tightness)


@dataclass(frozen=True, slots=True)
class NewReservation:
    """Units to set aside."""

    customer: Customer
    amount: Decimal
    ttl_s: int = TTL_DEFAULT_S
    idempotency_key: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Units that were set aside. `status` is as stored: it does not know of EXPIRED."""

    reservation_id: str
    metric: str
    customer_id: str
    amount: Decimal
    status: str
    create_time: datetime
    expire_time: datetime
    committed_amount: Decimal | None = None

    def status_at(self, now: datetime) -> str:
        """ACTIVE, COMMITTED, RELEASED or EXPIRED."""
        return EXPIRED if self.status == ACTIVE and self.expire_time <= now else self.status

    def answers(self, new: NewReservation) -> bool:
        """Whether `new` asks for the same units."""
        asked = (new.customer.metric, new.customer.customer_id, new.amount)
        return (self.metric, self.customer_id, self.amount) == asked


def check_settings(settings: QuotaSettings, metric: Metric | None, checks: FieldChecks) -> None:
    """Note what is wrong besides the limit; raises InvalidArgumentError when anything is."""
    if checks.require(metric is not None, "metric", _NO_METRIC):
        assert metric is not None
        checks.require(
            metric.definition.aggregation in AGGREGATIONS,
            "metric",
            f"must be of aggregation {' or '.join(AGGREGATIONS)}",
        )
    if settings.customer_id:
        _check_customer_id(checks, settings.customer_id)
    checks.require(settings.period in PERIODS, "period", f"must be one of {', '.join(PERIODS)}")
    checks.require(
        settings.enforcement in ENFORCEMENTS,
        "enforcement",
        f"must be one of {', '.join(ENFORCEMENTS)}",
    )
    known = not settings.time_zone or settings.time_zone in windows.zone_names()
    checks.require(known, "timezone", 'must be an IANA time zone such as "Europe/Berlin"')
    _check_thresholds(checks, settings)
    checks.done()


def _check_thresholds(checks: FieldChecks, settings: QuotaSettings) -> None:
    thresholds = settings.thresholds
    checks.require(len(thresholds) <= THRESHOLDS_MAX, "thresholds", f"at most {THRESHOLDS_MAX}")
    checks.require(
        len(set(thresholds)) == len(thresholds), "thresholds", "must not name anything twice"
    )
    wrong = [threshold for threshold in thresholds if not _is_threshold(threshold)]
    checks.require(
        not wrong,
        "thresholds",
        f'each must be a percentage of the limit from "1%" to "{PERCENT_MAX}%", or a decimal of '
        'units such as "1000"',
    )


def _is_threshold(text: str) -> bool:
    if percent := _match_percent(text):
        return int(percent[1]) <= PERCENT_MAX
    try:
        return parse_decimal(text, "thresholds") > 0
    except InvalidArgumentError:
        return False


def check_customer(customer: Customer, checks: FieldChecks) -> None:
    """Note what is wrong with a customer who has to be named, and what can be no metric."""
    checks.require(is_metric_key(customer.metric), "metric", _NO_METRIC)
    _check_customer_id(checks, customer.customer_id)


def check_reservation(new: NewReservation, checks: FieldChecks) -> None:
    """Raise InvalidArgumentError when anything is wrong; `checks` has read the amount."""
    if not checks.problems:
        checks.require(new.amount > 0, "amount", "must be more than 0")
    check_customer(new.customer, checks)
    checks.require(1 <= new.ttl_s <= TTL_MAX_S, "ttlSeconds", f"must be from 1 to {TTL_MAX_S:,}")
    checks.require(
        _is_idempotency_key(new.idempotency_key) is not None,
        "idempotencyKey",
        f"must be 1-{IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters",
    )
    checks.done()


def _check_customer_id(checks: FieldChecks, customer_id: str) -> None:
    checks.require(
        is_customer_id(customer_id),
        "customerId",
        f"must be 1-{CUSTOMER_ID_CHARS_MAX} characters without control characters",
    )


_NO_METRIC = "must be the key of a metric; there is no such"


def no_such_metric() -> InvalidArgumentError:
    """The error of a metric that does not exist."""
    return InvalidArgumentError([FieldProblem("metric", _NO_METRIC)])


def quota_exceeded(state: QuotaState) -> PreconditionError:
    """The error of more units than a hard quota has left; the metadata are for programs."""
    limit, remaining = state.quota.settings.limit, state.remaining
    assert limit is not None
    assert remaining is not None
    metadata = {
        "limit": format_decimal(limit),
        "used": format_decimal(state.used),
        "reserved": format_decimal(state.reserved),
        "remaining": format_decimal(remaining),
    }
    until = ""
    if state.resets_at is not None:
        metadata["resets_at"] = f"{state.resets_at:%Y-%m-%dT%H:%M:%SZ}"
        until = f" until {metadata['resets_at']}"
    sentence = (
        f"The quota of {metadata['limit']} leaves {metadata['remaining']}{until}: "
        f"{metadata['used']} used, {metadata['reserved']} set aside"
    )
    return PreconditionError(sentence, reason="quota_exceeded", metadata=metadata)


def key_conflict() -> ConflictError:
    """The error of an idempotency key that was used for another reservation."""
    return ConflictError(
        "The idempotency key was used for another reservation", reason="idempotency_conflict"
    )


def commit(reservation: Reservation, amount: Decimal | None, now: datetime) -> Decimal | None:
    """The amount to commit; None: it is committed already. PreconditionError."""
    used = reservation.amount if amount is None else amount
    match reservation.status_at(now):
        case "ACTIVE":
            return used
        case "COMMITTED" if amount is None or reservation.committed_amount == amount:
            return None
        case status:
            raise _wrong_status(status)


def may_release(reservation: Reservation) -> bool:
    """Whether there is anything to give back; PreconditionError when it was used."""
    if reservation.status == COMMITTED:
        raise _wrong_status(COMMITTED)
    return reservation.status == ACTIVE


def _wrong_status(status: str) -> PreconditionError:
    word = status.lower()
    return PreconditionError(f"The reservation is {word}", reason=f"reservation_{word}")


def first_refusal(states: Sequence[QuotaState], amount: Decimal) -> QuotaState | None:
    """The first quota that does not allow so much more."""
    return next((state for state in states if not state.allows(amount)), None)
