"""The organizations of a campaign, each in both modes."""

from pathlib import Path

import grpc
from usageflow.accounts.v1 import accounts_pb2, accounts_pb2_grpc
from usageflow.common.v1 import common_pb2

from tests.chaos.usage import Tenant
from tests.e2e.api import internal_metadata, issue_key

ORGANIZATIONS = 3
MODES = {"live": common_pb2.MODE_LIVE, "test": common_pb2.MODE_TEST}


def make_tenants(home: Path, accounts_address: str) -> dict[str, Tenant]:
    """New organizations with a key for each mode; tenants by name."""
    tenants = [
        Tenant(organization_id, mode, issue_key(home, accounts_address, organization_id, number))
        for organization_id in _organizations(home, accounts_address)
        for mode, number in MODES.items()
    ]
    return {tenant.name: tenant for tenant in tenants}


def _organizations(home: Path, accounts_address: str) -> list[str]:
    with grpc.insecure_channel(accounts_address) as channel:
        accounts = accounts_pb2_grpc.AccountsInternalServiceStub(channel)
        return [
            accounts.CreateOrganization(
                accounts_pb2.CreateOrganizationRequest(name=f"Chaos {number}"),
                timeout=10,
                metadata=internal_metadata(home),
            ).organization.id
            for number in range(ORGANIZATIONS)
        ]
