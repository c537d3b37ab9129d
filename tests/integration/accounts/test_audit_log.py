"""The audit log: what accounts does itself, and what other services tell over NATS."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import MetaData, func, select, text

from services.accounts import audit_repository
from services.accounts.audit import BATCH_MAX, AuditConsumer, AuditLog
from services.accounts.audit_repository import AuditFilter
from services.accounts.domain import KeyChange, NewKey, OrganizationChange
from services.accounts.service import Accounts
from services.kit import clock
from services.kit.audit import (
    CONSUMER,
    SUBJECT,
    AuditEvent,
    add_audit_event,
    audit_event,
    audit_relay,
)
from services.kit.database import Database, TenantKey, metadata_naming
from services.kit.errors import InvalidArgumentError
from services.kit.ids import new_id
from services.kit.inbox import serve_inbox
from services.kit.messaging import AUDIT, Messaging
from services.kit.outbox import outbox_table
from tests.waiting import until

WAIT_S = 30.0
EVERYTHING = AuditFilter()

sender_metadata = MetaData(naming_convention=metadata_naming)
OUTBOX = outbox_table(sender_metadata, "audit_outbox")


@pytest.fixture
def audit_log(database: Database) -> AuditLog:
    """The use cases."""
    return AuditLog(database)


def told(tenant: TenantKey, action: str = "webhook.created", **fields: Any) -> AuditEvent:
    """What another service tells."""
    return audit_event(tenant, action, **({"details": {"url": "https://example.com"}} | fields))


async def listed(
    audit_log: AuditLog, tenant: TenantKey, wanted: AuditFilter = EVERYTHING
) -> list[AuditEvent]:
    """The tenant's events, newest first."""
    entries, _token = await audit_log.list(tenant, wanted, 100, "")
    return [entry.event for entry in entries]


async def test_keys_are_told_of_when_they_are_made_and_when_they_end(
    accounts: Accounts, audit_log: AuditLog, tenant: TenantKey
) -> None:
    key, secret = await accounts.create_api_key(
        tenant, NewKey("server", ["track"], None), by_key="key_admin"
    )
    await accounts.revoke_api_key(tenant, key.id, by_key="key_admin")
    await accounts.revoke_api_key(tenant, key.id, by_key="key_admin")
    revoked, created = await listed(audit_log, tenant)
    assert (created.action, revoked.action) == ("api_key.created", "api_key.revoked")
    for event in (created, revoked):
        assert (event.target_id, event.key_id) == (key.id, "key_admin")
        assert secret[len(key.prefix) :] not in event.details_json
    assert json.loads(created.details_json) == {
        "name": "server",
        "allowedNetworks": [],
        "requestsPerSecond": None,
        "eventsPerSecond": None,
        "prefix": key.prefix,
        "scopes": ["track"],
        "expiresAt": None,
    }


async def test_a_change_of_a_key_is_told_once_with_before_and_after(
    accounts: Accounts, audit_log: AuditLog, tenant: TenantKey
) -> None:
    key, _secret = await accounts.create_api_key(tenant, NewKey("server", ["track"], None))
    change = KeyChange(networks=["10.0.0.0/8"], requests_per_second=5)
    for _twice in range(2):
        await accounts.update_api_key(tenant, key.id, change, by_key="key_admin")
    changed, _created = await listed(audit_log, tenant)
    assert (changed.action, changed.target_id, changed.key_id) == (
        "api_key.updated",
        key.id,
        "key_admin",
    )
    assert json.loads(changed.details_json) == {
        "before": {"allowedNetworks": [], "requestsPerSecond": None},
        "after": {"allowedNetworks": ["10.0.0.0/8"], "requestsPerSecond": 5},
    }


async def test_a_change_of_the_organization_is_told_in_both_modes_with_before_and_after(
    accounts: Accounts, audit_log: AuditLog, tenant: TenantKey
) -> None:
    change = OrganizationChange(event_past_days=400, event_retention_days=400)
    for _twice in range(2):
        await accounts.update_organization(tenant.organization_id, change, by_key="key_admin")
    for mode in ("live", "test"):
        [event] = await listed(audit_log, TenantKey(tenant.organization_id, mode))
        assert (event.action, event.target_id) == ("organization.updated", tenant.organization_id)
        assert json.loads(event.details_json) == {
            "before": {"eventPastDays": 35},
            "after": {"eventPastDays": 400},
        }


async def test_what_is_refused_leaves_no_entry(
    accounts: Accounts, audit_log: AuditLog, tenant: TenantKey
) -> None:
    with pytest.raises(InvalidArgumentError):
        await accounts.create_api_key(tenant, NewKey("server", ["owner"], None))
    with pytest.raises(InvalidArgumentError):
        await accounts.update_organization(
            tenant.organization_id, OrganizationChange(event_past_days=1)
        )
    assert await listed(audit_log, tenant) == []


async def test_the_same_event_twice_is_one_entry(audit_log: AuditLog, tenant: TenantKey) -> None:
    event = told(tenant, target_id="whe_1", key_id="key_1")
    assert await audit_log.take([event, event]) == 1
    assert await audit_log.take([event]) == 0
    assert await listed(audit_log, tenant) == [event]


async def test_two_replicas_with_the_same_events_do_not_deadlock(
    audit_log: AuditLog, tenant: TenantKey
) -> None:
    events = [told(tenant) for _ in range(50)]
    counts = await asyncio.gather(audit_log.take(events), audit_log.take(events[::-1]))
    assert sum(counts) == len(await listed(audit_log, tenant)) == 50


async def test_an_event_of_an_unknown_organization_holds_up_no_other(
    audit_log: AuditLog, tenant: TenantKey
) -> None:
    stranger = TenantKey(new_id("org"), "test")
    event = told(tenant)
    assert await audit_log.take([told(stranger), event]) == 1
    assert await listed(audit_log, stranger) == []
    assert await listed(audit_log, tenant) == [event]


async def test_a_tenant_lists_its_own_only(
    accounts: Accounts, audit_log: AuditLog, tenant: TenantKey
) -> None:
    other = await accounts.create_organization("Other")
    await audit_log.take([told(tenant)])
    for stranger in (TenantKey(tenant.organization_id, "live"), TenantKey(other.id, "test")):
        assert await listed(audit_log, stranger) == []
        assert await listed(audit_log, stranger, AuditFilter(action="webhook.created")) == []


async def test_lists_are_filtered(audit_log: AuditLog, tenant: TenantKey) -> None:
    now = clock.now()
    made = told(tenant, target_id="whe_1", key_id="key_1")
    gone = told(tenant, "webhook.deleted", target_id="whe_1")
    void = told(tenant, "event.voided", target_id="evt_1", key_id="key_2")
    await audit_log.take([made, gone, void])
    for wanted, expected in (
        (AuditFilter(action="webhook.created"), [made]),
        (AuditFilter(action="webhook.*"), [gone, made]),
        (AuditFilter(action="web_ook.*"), []),
        (AuditFilter(target_id="whe_1"), [gone, made]),
        (AuditFilter(key_id="key_2"), [void]),
        (AuditFilter(action="event.*", key_id="key_1"), []),
        (AuditFilter(from_time=now, to_time=gone.time), [made]),
        (AuditFilter(from_time=gone.time), [void, gone]),
        (AuditFilter(from_time=now + timedelta(days=1)), []),
    ):
        assert await listed(audit_log, tenant, wanted) == expected, wanted


async def test_pages_give_each_event_once_also_at_one_instant(
    audit_log: AuditLog, tenant: TenantKey
) -> None:
    events = [told(tenant) for _ in range(7)]
    same_time = [AuditEvent(**_fields(event, time=events[0].time)) for event in events]
    await audit_log.take(same_time)
    found, token = await audit_log.list(tenant, EVERYTHING, 3, "")
    pages = [len(found)]
    while token:
        more, token = await audit_log.list(tenant, EVERYTHING, 3, token)
        found += more
        pages.append(len(more))
    assert pages == [3, 3, 1]
    assert [entry.event for entry in found] == sorted(
        same_time, key=lambda event: event.id, reverse=True
    )


def _fields(event: AuditEvent, **changed: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in AuditEvent.__dataclass_fields__} | changed


@pytest.mark.parametrize(
    ("wanted", "fields"),
    [
        (AuditFilter(action="created"), {"action"}),
        (AuditFilter(action="*"), {"action"}),
        (
            AuditFilter(action="x", target_id="t" * 256, key_id="k" * 256),
            {"action", "targetId", "keyId"},
        ),
        (AuditFilter(target_id="\x00"), {"targetId"}),
        (AuditFilter(from_time=clock.now(), to_time=clock.now() - timedelta(1)), {"to"}),
    ],
)
async def test_all_that_is_wrong_with_a_filter_is_told(
    audit_log: AuditLog, tenant: TenantKey, wanted: AuditFilter, fields: set[str]
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        await audit_log.list(tenant, wanted, 0, "")
    assert {problem.field for problem in refused.value.problems} == fields


@pytest.mark.parametrize("token", ["nonsense", "WyJhIiwiYiJd", "WyIyMDI2LTAxLTAxIiwiYXVkXzEiXQ"])
async def test_a_token_of_something_else_is_refused(
    audit_log: AuditLog, tenant: TenantKey, token: str
) -> None:
    with pytest.raises(InvalidArgumentError):
        await audit_log.list(tenant, EVERYTHING, 0, token)


@pytest.fixture
async def messaging(nats_url: str) -> AsyncIterator[Messaging]:
    """A connection to NATS."""
    messaging = await Messaging.connect(nats_url, "test")
    yield messaging
    await messaging.close()


@pytest.fixture
async def running(
    database: Database, audit_log: AuditLog, messaging: Messaging
) -> AsyncIterator[None]:
    """accounts listening, and a service with an outbox beside it."""
    async with database.engine.begin() as connection:
        await connection.run_sync(sender_metadata.create_all)
    await serve_inbox(database, audit_repository.inbox, messaging, CONSUMER)
    handle = AuditConsumer(audit_log).handle
    consumer = messaging.consume(AUDIT, CONSUMER, handle, batch_max=BATCH_MAX)
    tasks = [
        asyncio.create_task(consumer.run()),
        asyncio.create_task(audit_relay(database, OUTBOX, messaging).run()),
    ]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def outbox_is_empty(database: Database) -> None:
    """Return when everything told has arrived."""

    async def is_empty() -> bool:
        async with database.transaction() as connection:
            left = await connection.execute(select(func.count()).select_from(OUTBOX))
            return not left.scalar_one()

    await until("all that was told", is_empty, WAIT_S)


async def test_what_a_service_tells_arrives_and_leaves_its_outbox(
    running: None, database: Database, audit_log: AuditLog, tenant: TenantKey
) -> None:
    events = [told(tenant, details={"text": "ü\n'\"", "n": 1}) for _ in range(3)]
    async with database.transaction() as connection:
        for event in events:
            await add_audit_event(connection, OUTBOX, event)
    await outbox_is_empty(database)
    assert {event.id for event in await listed(audit_log, tenant)} == {e.id for e in events}
    [first, *_] = await listed(audit_log, tenant)
    assert json.loads(first.details_json) == {"text": "ü\n'\"", "n": 1}


async def test_what_is_rolled_back_is_not_told(
    running: None, database: Database, audit_log: AuditLog, tenant: TenantKey
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            await add_audit_event(connection, OUTBOX, told(tenant))
            raise ZeroDivisionError
    event = told(tenant)
    async with database.transaction() as connection:
        await add_audit_event(connection, OUTBOX, event)
    await outbox_is_empty(database)
    assert await listed(audit_log, tenant) == [event]


async def test_an_unreadable_message_holds_up_no_other(
    running: None, messaging: Messaging, database: Database, audit_log: AuditLog, tenant: TenantKey
) -> None:
    await messaging.publish(SUBJECT, b"\xff", "unreadable")
    event = told(tenant)
    async with database.transaction() as connection:
        await add_audit_event(connection, OUTBOX, event)
    await outbox_is_empty(database)
    assert await listed(audit_log, tenant) == [event]


async def test_the_index_answers_what_happened_to_one_thing(
    database: Database, audit_log: AuditLog, tenant: TenantKey
) -> None:
    await audit_log.take([told(tenant, target_id=f"whe_{n}") for n in range(100)])
    async with database.transaction() as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        await connection.execute(text("ANALYZE audit_log"))
        rows = await connection.execute(
            text(
                "EXPLAIN SELECT * FROM audit_log WHERE organization_id = "
                f"'{tenant.organization_id}' AND mode = 'test' "
                "AND target_id = 'whe_1' ORDER BY time DESC, id DESC LIMIT 20"
            )
        )
        plan = "\n".join(rows.scalars())
    assert "ix_audit_log_of_target" in plan
    assert "Sort" not in plan
