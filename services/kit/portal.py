"""What a link to the customer portal may call, and how each of these RPCs keeps to one customer.

Such a caller is bound to a customer (auth.Principal.customer_id). Every service's interceptor looks
here: an RPC that is not named is refused, whatever it is; of one that is, either the request has
to name the customer, or the answer has to say that it is the customer's, before anybody sees it.
Nothing here changes anything or is a stream: an answer can be thrown away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.kit.auth import Principal
from services.kit.errors import FieldProblem, InvalidArgumentError, NotFoundError


@dataclass(frozen=True, slots=True)
class Reach:
    """How an RPC keeps to the customer. `asked`: the field of the request that has to name them;
    `told`: where the answer says whose it is; `hidden`: what of the answer they must not see.

    Neither `asked` nor `told`: the answer is nobody's in particular.
    """

    asked: str = ""
    told: str = ""
    hidden: str = ""

    def check_request(self, principal: Principal, request: Any) -> None:
        """InvalidArgumentError unless it asks for the customer's, and for nobody else's."""
        if self.asked and getattr(request, self.asked) != principal.customer_id:
            raise InvalidArgumentError(
                [FieldProblem("customerId", "must be the customer whose portal it is")],
                reason="foreign_customer",
            )

    def check_answer(self, principal: Principal, answer: Any) -> None:
        """NotFoundError, as for what is not there, unless the answer is the customer's."""
        if self.told and _at(answer, self.told) != principal.customer_id:
            raise NotFoundError("There is no such thing in this portal")
        if self.hidden:
            *path, name = self.hidden.split(".")
            _at(answer, ".".join(path)).ClearField(name)


_INVOICER: Final = "/usageflow.invoicer.v1"
REACH: Final[Mapping[str, Reach]] = {
    "/usageflow.accounts.v1.PortalService/GetCurrentPortal": Reach(told="customer_id"),
    # What the organization counts, and in which units: nobody's usage.
    "/usageflow.aggregator.v1.AggregatorService/ListMetrics": Reach(),
    "/usageflow.aggregator.v1.AggregatorService/QueryUsage": Reach(asked="customer_id"),
    # What the organization notes about them is its own.
    f"{_INVOICER}.InvoicerService/GetCustomer": Reach(
        asked="customer_id", told="customer.id", hidden="customer.metadata_json"
    ),
    f"{_INVOICER}.InvoicerService/ListSubscriptions": Reach(asked="customer_id"),
    f"{_INVOICER}.InvoicerService/PreviewInvoice": Reach(told="invoice.customer_id"),
    f"{_INVOICER}.InvoicerService/ListInvoices": Reach(asked="customer_id"),
    f"{_INVOICER}.InvoicerService/GetInvoice": Reach(told="invoice.customer_id"),
    f"{_INVOICER}.DocumentsService/GetRenderedInvoice": Reach(told="customer_id"),
}


def _at(message: Any, path: str) -> Any:
    for name in path.split(".") if path else ():
        message = getattr(message, name)
    return message
