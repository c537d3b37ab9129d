"""What a link to the customer portal may call is there, reads, and keeps to one customer."""

import importlib
from typing import Any

import pytest
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from services.kit.auth import Principal
from services.kit.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError
from services.kit.permissions import only_reads, require
from services.kit.portal import REACH, Reach

LINK = Principal(
    key_id="",
    organization_id="org_1",
    mode=1,
    mode_name="live",
    scopes=frozenset({"read"}),
    customer_id="ada",
    portal_link_id="ptl_1",
)


def descriptor(method: str) -> Any:
    """The descriptor of "/package.Service/Rpc"."""
    service, rpc = method.removeprefix("/").split("/")
    package, _, name = service.rpartition(".")
    folder = package.removeprefix("usageflow.").split(".")[0]
    for module in ("accounts", "portal", "aggregator", "invoicer", "documents"):
        try:
            found = importlib.import_module(f"usageflow.{folder}.v1.{module}_pb2")
        except ModuleNotFoundError:
            continue
        if name in found.DESCRIPTOR.services_by_name:
            return found.DESCRIPTOR.services_by_name[name].methods_by_name[rpc]
    raise LookupError(method)


def text_at(message: Any, path: str) -> bool:
    """Whether there is a single text at the path."""
    *parents, name = path.split(".")
    for parent in parents:
        message = message.fields_by_name[parent].message_type
    field = message.fields_by_name[name]
    return bool(field.type == field.TYPE_STRING and not field.is_repeated)


@pytest.mark.parametrize("method", REACH)
def test_what_is_reached_reads_one_answer_and_names_fields_that_there_are(method: str) -> None:
    found, reach = descriptor(method), REACH[method]
    assert only_reads(found.name)
    assert not found.client_streaming
    assert not found.server_streaming
    assert not reach.asked or text_at(found.input_type, reach.asked)
    assert not reach.told or text_at(found.output_type, reach.told)
    assert not reach.hidden or text_at(found.output_type, reach.hidden)
    # What is nobody's in particular says what there is, not who used how much of it.
    assert reach.asked or reach.told or found.name == "ListMetrics"


@pytest.mark.parametrize(
    "method",
    [
        "/usageflow.invoicer.v1.InvoicerService/PayInvoice",
        "/usageflow.invoicer.v1.InvoicerService/ListCustomers",
        "/usageflow.aggregator.v1.LiveUsageService/WatchUsage",
        "/usageflow.ingest.v1.IngestService/ListEvents",
        "/usageflow.accounts.v1.PortalService/CreatePortalLink",
        "/usageflow.new.v1.NewService/GetAnything",
    ],
)
def test_everything_else_is_refused(method: str) -> None:
    with pytest.raises(PermissionDeniedError) as refused:
        require(LINK, method)
    assert refused.value.reason == "portal_only"


def test_an_answer_of_another_customer_is_not_found_and_notes_are_hidden() -> None:
    reach = Reach(asked="customer_id", told="customer.id", hidden="customer.metadata_json")
    reach.check_request(LINK, pb.GetCustomerRequest(customer_id="ada"))
    for other in ("", "bob", "ADA"):
        with pytest.raises(InvalidArgumentError):
            reach.check_request(LINK, pb.GetCustomerRequest(customer_id=other))
        with pytest.raises(NotFoundError):
            reach.check_answer(LINK, pb.GetCustomerResponse(customer=pb.Customer(id=other)))
    answer = pb.GetCustomerResponse(customer=pb.Customer(id="ada", metadata_json='{"risk": 9}'))
    reach.check_answer(LINK, answer)
    assert answer.customer == pb.Customer(id="ada")
