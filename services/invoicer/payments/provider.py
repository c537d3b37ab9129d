"""What a payment provider has to do."""

from typing import Protocol

from services.invoicer.payments.domain import Attempt, Outcome


class PaymentProvider(Protocol):
    """Charges customers' payment methods."""

    async def charge(self, attempt: Attempt, description: str, *, again: bool) -> Outcome:
        """Have the attempt's amount paid, at most once however often it is called.

        `again`: it may have been called for this attempt before. UnavailableError: what came of it
        is not known, or nothing; it has to be called again.
        """


class Providers(Protocol):
    """The providers of organizations."""

    async def of(self, api_key: str) -> PaymentProvider:
        """The one that this key of an organization belongs to."""
