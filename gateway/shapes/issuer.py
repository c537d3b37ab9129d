"""Who issues invoices, and invoices as files."""

import base64
import binascii
from typing import Annotated

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import documents_pb2 as pb

from services.kit.errors import FieldProblem, InvalidArgumentError


class Issuer(msgspec.Struct, rename="camel", kw_only=True):
    """What stands on an organization's invoices; each may be empty."""

    name: Annotated[str, Meta(max_length=200)] = ""
    address: Annotated[str, Meta(max_length=1_000, description="Lines")] = ""
    tax_id: Annotated[str, Meta(max_length=200, description="As it is to be shown")] = ""
    email: Annotated[str, Meta(max_length=200)] = ""
    footer: Annotated[
        str,
        Meta(max_length=1_000, description="At the foot of each page, for example how to pay"),
    ] = ""
    logo: Annotated[
        str, Meta(description="A PNG or JPEG of at most 128 KiB, in base64; empty: none")
    ] = ""


def to_proto(issuer: Issuer) -> pb.SetIssuerRequest:
    """The request that sets it; InvalidArgumentError when the logo is not base64."""
    try:
        logo = base64.b64decode(issuer.logo, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgumentError([FieldProblem("logo", "must be base64")]) from None
    return pb.SetIssuerRequest(
        issuer=pb.Issuer(
            name=issuer.name,
            address=issuer.address,
            tax_id=issuer.tax_id,
            email=issuer.email,
            footer=issuer.footer,
            logo=logo,
        )
    )


def from_proto(message: pb.Issuer) -> Issuer:
    """The JSON of an issuer."""
    return Issuer(
        name=message.name,
        address=message.address,
        tax_id=message.tax_id,
        email=message.email,
        footer=message.footer,
        logo=base64.b64encode(message.logo).decode(),
    )
