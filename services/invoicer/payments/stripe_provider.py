"""Payments by Stripe: PaymentIntents that are confirmed while the customer is away.

https://docs.stripe.com/api/payment_intents/create and /idempotent_requests. A key makes Stripe
answer a repeated request as it did the first time, for 24 hours, errors of its own (5xx) included.
So what may have been sent before is looked for first: then it does not matter how long ago.
"""

import asyncio
import importlib
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import structlog

from services.invoicer.payments.domain import (
    MESSAGE_CHARS_MAX,
    Attempt,
    AttemptState,
    Outcome,
)
from services.kit.errors import UnavailableError
from services.kit.money import EXACT, minor_digits

if TYPE_CHECKING:
    import stripe

log = structlog.get_logger()

ATTEMPT_KEY: Final = "usageflow_attempt"
# Of one customer, since the attempt began.
LOOKED_AT_MAX: Final = 1_000
_PAGE: Final = 100
# By how much our clock and Stripe's may differ.
_CLOCKS: Final = timedelta(hours=1)
# Where Stripe counts in other units than ISO 4217 (https://docs.stripe.com/currencies).
_DIGITS: Final = {"ISK": 2, "UGX": 2, "MGA": 0}
# What has neither succeeded nor failed, and must not succeed later by itself.
_OPEN: Final = ("requires_action", "requires_confirmation", "requires_capture")


class StripeProviders:
    """Providers by the organizations' keys, on one pool of connections. `api_base`: "": theirs."""

    def __init__(self, timeout_s: float, api_base: str = "") -> None:
        self._timeout_s = timeout_s
        self._api_base = api_base
        self._http: stripe.HTTPXClient | None = None

    async def of(self, api_key: str) -> "StripeProvider":
        """The account that the key belongs to."""
        # Importing takes its time and some memory, which who does not use it does without.
        sdk = await asyncio.to_thread(importlib.import_module, "stripe")
        if self._http is None:
            self._http = sdk.HTTPXClient(timeout=self._timeout_s)
        base = {"base_addresses": {"api": self._api_base}} if self._api_base else {}
        # Repeating is the collector's, which writes down what it does.
        client = sdk.StripeClient(api_key, http_client=self._http, max_network_retries=0, **base)
        return StripeProvider(client)

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close_async()  # type: ignore[no-untyped-call]


class StripeProvider:
    """A PaymentProvider on one account."""

    def __init__(self, client: "stripe.StripeClient") -> None:
        self._intents = client.v1.payment_intents

    async def charge(self, attempt: Attempt, description: str, *, again: bool) -> Outcome:
        """As PaymentProvider.charge; `reference` is the PaymentIntent's id."""
        import stripe

        units = minor_units(attempt.amount, attempt.currency)
        if units is None:
            message = f"Stripe can't charge {attempt.amount} {attempt.currency}"
            return Outcome(AttemptState.FAILED, "", "amount_not_chargeable", message)
        try:
            intent = await self._find(attempt) if again else None
        except stripe.StripeError as error:
            raise _unknown(error) from None
        if intent is not None:
            return await self._outcome(intent)
        try:
            intent = await self._create(attempt, units, description)
        except stripe.CardError as error:
            return _declined(error)
        except (
            stripe.APIConnectionError,
            stripe.RateLimitError,
            stripe.IdempotencyError,
        ) as error:
            raise _unknown(error) from None
        except (
            stripe.AuthenticationError,
            stripe.PermissionError,
            stripe.InvalidRequestError,
        ) as error:
            return _declined(error)
        except stripe.StripeError as error:
            raise _unknown(error) from None
        return await self._outcome(intent)

    async def _create(
        self, attempt: Attempt, units: int, description: str
    ) -> "stripe.PaymentIntent":
        assert attempt.method is not None
        return await self._intents.create_async(
            {
                "amount": units,
                "currency": attempt.currency.lower(),
                "customer": attempt.method.provider_customer,
                "payment_method": attempt.method.provider_method,
                "confirm": True,
                "off_session": True,
                "description": description,
                "metadata": {ATTEMPT_KEY: attempt.key},
            },
            {"idempotency_key": attempt.key},
        )

    async def _find(self, attempt: Attempt) -> "stripe.PaymentIntent | None":
        """What an earlier call has made of the attempt; None: nothing."""
        if attempt.reference:
            return await self._intents.retrieve_async(attempt.reference)
        assert attempt.method is not None
        since = int((attempt.real_start_time - _CLOCKS).timestamp())
        found = await self._intents.list_async(
            {
                "customer": attempt.method.provider_customer,
                "created": {"gte": since},
                "limit": _PAGE,
            }
        )
        looked_at = 0
        async for intent in found.auto_paging_iter():
            told = intent.metadata
            if ATTEMPT_KEY in told and told[ATTEMPT_KEY] == attempt.key:
                return intent
            looked_at += 1
            if looked_at >= LOOKED_AT_MAX:
                raise UnavailableError("Too many payments of this customer to look through")
        return None

    async def _outcome(self, intent: "stripe.PaymentIntent") -> Outcome:
        match intent.status:
            case "succeeded":
                return Outcome(AttemptState.SUCCEEDED, intent.id)
            case "processing":
                return Outcome(AttemptState.PENDING, intent.id)
        if intent.status in _OPEN:
            await self._cancel(intent)
        error: Any = intent.last_payment_error
        code = getattr(error, "decline_code", None) or getattr(error, "code", None)
        message = getattr(error, "message", None) or f"The payment is {intent.status}"
        return Outcome(
            AttemptState.FAILED, intent.id, code or intent.status, message[:MESSAGE_CHARS_MAX]
        )

    async def _cancel(self, intent: "stripe.PaymentIntent") -> None:
        """Let it not succeed after it has counted as failed; UnavailableError: look again."""
        import stripe

        try:
            await self._intents.cancel_async(intent.id)
        except stripe.StripeError as error:
            raise _unknown(error) from None


def minor_units(amount: Decimal, currency: str) -> int | None:
    """The amount as Stripe counts it; None: it can't be charged to the unit."""
    digits = _DIGITS.get(currency, minor_digits(currency))
    units = amount.scaleb(digits, EXACT)
    # Stripe takes amounts of three digits in tens, and the crowns and shillings above in hundreds.
    step = 100 if currency in ("ISK", "UGX") else 10 if digits == 3 else 1
    return int(units) if units == int(units) and int(units) % step == 0 else None


def _unknown(error: "stripe.StripeError") -> UnavailableError:
    """What came of a request is not known; the log says why, without what was sent."""
    log.warning(
        "stripe_unknown",
        error=type(error).__name__,
        status=error.http_status,
        code=error.code,
        stripe_request_id=error.request_id,
    )
    return UnavailableError("Stripe does not say what came of the payment")


def _declined(error: "stripe.StripeError") -> Outcome:
    details = error.error
    intent = getattr(details, "payment_intent", None)
    code = getattr(details, "decline_code", None) or error.code or getattr(details, "type", None)
    message = (error.user_message or "The payment was refused")[:MESSAGE_CHARS_MAX]
    return Outcome(AttemptState.FAILED, getattr(intent, "id", "") or "", code or "refused", message)
