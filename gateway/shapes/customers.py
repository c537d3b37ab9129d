"""Customers: whom the organization bills."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.fields import JsonObject
from gateway.shapes.common import raw_object, time_of


class NewCustomer(msgspec.Struct, rename="camel", kw_only=True):
    """A customer to make, or to set in full when there is one with the id."""

    id: Annotated[str, Meta(description="The caller's own id, 1-255 characters")]
    name: str = ""
    email: str | None = None
    timezone: Annotated[
        str | None, Meta(description="IANA time zone that billing periods follow; null: UTC")
    ] = None
    currency: Annotated[str | None, Meta(description="ISO 4217 code; null: that of the plan")] = (
        None
    )
    metadata: JsonObject | UnsetType = UNSET


class CustomerChange(msgspec.Struct, rename="camel", kw_only=True):
    """What to change of a customer; what is left out stays, null empties."""

    name: str | UnsetType = UNSET
    email: str | UnsetType | None = UNSET
    timezone: str | UnsetType | None = UNSET
    currency: str | UnsetType | None = UNSET
    metadata: JsonObject | UnsetType = UNSET


class Customer(msgspec.Struct, rename="camel", kw_only=True):
    """A customer."""

    id: str
    name: str
    email: str | None
    timezone: str | None
    currency: str | None
    metadata: msgspec.Raw
    created_at: datetime


class CustomerPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of customers."""

    data: list[Customer]
    next_cursor: str | None


# JSON name to proto name.
_FIELDS = {
    "name": "name",
    "email": "email",
    "timezone": "time_zone",
    "currency": "currency",
    "metadata": "metadata_json",
}


def to_proto(customer: NewCustomer) -> pb.PutCustomerRequest:
    """The request that makes a customer or sets it in full."""
    return pb.PutCustomerRequest(
        customer=pb.Customer(
            id=customer.id,
            name=customer.name,
            email=customer.email or "",
            time_zone=customer.timezone or "",
            currency=customer.currency or "",
            metadata_json=customer.metadata or "",
        )
    )


def change_to_proto(customer_id: str, change: CustomerChange) -> pb.PutCustomerRequest:
    """The request that changes the fields that were sent."""
    sent = {
        proto_name: getattr(change, name)
        for name, proto_name in _FIELDS.items()
        if getattr(change, name) is not UNSET
    }
    customer = pb.Customer(id=customer_id)
    for proto_name, value in sent.items():
        setattr(customer, proto_name, value or "")
    return pb.PutCustomerRequest(customer=customer, update_fields=list(sent))


def from_proto(message: pb.Customer) -> Customer:
    """The JSON of a customer."""
    return Customer(
        id=message.id,
        name=message.name,
        email=message.email or None,
        timezone=message.time_zone or None,
        currency=message.currency or None,
        metadata=raw_object(message.metadata_json),
        created_at=time_of(message.create_time),
    )
