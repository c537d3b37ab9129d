"""Every RPC of every service names what it takes."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from services.kit.permissions import (
    BILLING,
    INTEGRATIONS,
    METRICS,
    ORGANIZATION,
    OWN,
    READ,
    ROLES,
    RULES,
    TRACK,
    Permission,
    permission_of,
)

PROTO = Path(__file__).resolve().parents[3] / "proto"


def services() -> list[Any]:
    """The descriptors of all services for callers with a key or a session."""
    found = []
    for path in sorted(PROTO.rglob("*.proto")):
        name = ".".join(path.relative_to(PROTO).with_suffix("").parts) + "_pb2"
        found += importlib.import_module(name).DESCRIPTOR.services_by_name.values()
    return [service for service in found if not service.name.endswith("InternalService")]


def rpcs() -> list[str]:
    """ "/package.Service/Rpc" of each of their RPCs."""
    return [
        f"/{service.full_name}/{method.name}"
        for service in services()
        for method in service.methods
    ]


@pytest.mark.parametrize("rpc", rpcs())
def test_every_rpc_names_its_permission(rpc: str) -> None:
    assert permission_of(rpc) is not None, "say in kit/permissions.py who may call it"


def test_every_rule_is_of_an_rpc_that_is_there() -> None:
    assert {service.file.package for service in services()} == RULES.keys()
    there = {tuple(rpc.removeprefix("/").split("/")) for rpc in rpcs()}
    by_package = {(service.rpartition(".")[0], rpc) for service, rpc in there}
    named = {(package, rpc) for package, rules in RULES.items() for rpc in rules.others}
    assert named <= by_package


@pytest.mark.parametrize(
    ("rpc", "permission"),
    [
        ("usageflow.accounts.v1.AccountsService/GetOrganization", READ),
        ("usageflow.accounts.v1.AccountsService/UpdateOrganization", ORGANIZATION),
        ("usageflow.accounts.v1.AccountsService/CreateApiKey", INTEGRATIONS),
        ("usageflow.accounts.v1.AccountsService/RevokeApiKey", INTEGRATIONS),
        ("usageflow.accounts.v1.AccountsService/ListAuditEvents", READ),
        ("usageflow.accounts.v1.MembersService/GetCurrentMember", OWN),
        ("usageflow.accounts.v1.MembersService/RevokeSession", OWN),
        ("usageflow.aggregator.v1.AggregatorService/CreateMetric", METRICS),
        ("usageflow.aggregator.v1.AggregatorService/QueryUsage", READ),
        ("usageflow.aggregator.v1.LiveUsageService/WatchUsage", READ),
        ("usageflow.aggregator.v1.QuotaService/SetQuota", BILLING),
        ("usageflow.aggregator.v1.QuotaService/CheckQuota", READ),
        ("usageflow.aggregator.v1.QuotaService/ReserveQuota", TRACK),
        ("usageflow.ingest.v1.IngestService/RecordEvents", TRACK),
        ("usageflow.ingest.v1.IngestService/StreamEvents", TRACK),
        ("usageflow.ingest.v1.IngestService/VoidEvents", BILLING),
        ("usageflow.ingest.v1.IngestService/ListEvents", READ),
        ("usageflow.invoicer.v1.BillingTermsService/CreateCreditNote", BILLING),
        ("usageflow.invoicer.v1.CreditsService/GrantCredits", BILLING),
        ("usageflow.invoicer.v1.CreditsService/ListCreditEntries", READ),
        ("usageflow.invoicer.v1.DocumentsService/ListLineEvents", READ),
        ("usageflow.invoicer.v1.SubscriptionChangesService/ListBillingPeriods", READ),
        ("usageflow.invoicer.v1.DocumentsService/GetRenderedInvoice", READ),
        ("usageflow.invoicer.v1.DocumentsService/SetIssuer", BILLING),
        ("usageflow.invoicer.v1.InvoicerService/QuotePlan", READ),
        ("usageflow.invoicer.v1.InvoicerService/PreviewInvoice", READ),
        ("usageflow.invoicer.v1.InvoicerService/VoidInvoice", BILLING),
        ("usageflow.invoicer.v1.SimulationService/SimulatePlan", READ),
        ("usageflow.notifier.v1.NotifierService/CreateEndpoint", INTEGRATIONS),
        ("usageflow.notifier.v1.NotifierService/ReplayDeliveries", INTEGRATIONS),
        ("usageflow.notifier.v1.NotifierService/ListDeliveries", READ),
    ],
)
def test_a_permission_is_what_the_roles_are_for(rpc: str, permission: Permission) -> None:
    assert permission_of("/" + rpc) is permission


def test_a_viewer_changes_nothing() -> None:
    """Whatever a viewer may call begins with a word that means reading, or is their own session."""
    viewers = [rpc for rpc in rpcs() if "VIEWER" in (permission_of(rpc) or READ).roles]
    changing = [rpc for rpc in viewers if permission_of(rpc) is not READ]
    assert {permission_of(rpc) for rpc in changing} <= {OWN}


def test_owners_may_whatever_members_may() -> None:
    for rpc in rpcs():
        permission = permission_of(rpc)
        assert permission is not None
        assert permission.roles <= set(ROLES)
        assert not permission.roles or "OWNER" in permission.roles


def test_what_has_no_rules_is_nothing_that_anybody_may() -> None:
    assert permission_of("/usageflow.new.v1.NewService/GetAnything") is None
