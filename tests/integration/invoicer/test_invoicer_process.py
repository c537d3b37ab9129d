"""invoicer as the process that `python -m services.invoicer` starts."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from nats.aio.msg import Msg
from sqlalchemy import text
from usageflow.accounts.v1 import accounts_pb2, accounts_pb2_grpc
from usageflow.common.v1 import common_pb2
from usageflow.events.v1 import events_pb2
from usageflow.invoicer.v1 import invoicer_pb2 as pb
from usageflow.invoicer.v1 import invoicer_pb2_grpc

from cli.ports import free_port
from services.invoicer.domain import InvoiceStatus
from services.invoicer.periods import quarter_hour_of
from services.invoicer.service.subscriptions import SubscriptionInput
from services.kit import clock
from services.kit.grpc_client import api_key_metadata, open_channel
from services.kit.keys import make_key
from services.kit.messaging import BILLING, Messaging
from tests.integration.invoicer.paying import API_KEY, METHOD, use_stripe
from tests.integration.invoicer.stand_in_stripe import Does, stand_in_stripe
from tests.integration.invoicer.stand_ins import PROVIDER_SECRET, TOKEN, World, pro_plan
from tests.waiting import until

WAIT_S = 60
SUBSCRIPTIONS = 60
KEY = make_key("test")


class StandInAccounts(accounts_pb2_grpc.AccountsInternalServiceServicer):
    """Knows one key."""

    def __init__(self, organization_id: str) -> None:
        self._organization_id = organization_id

    async def ResolveApiKey(
        self, request: accounts_pb2.ResolveApiKeyRequest, context: object
    ) -> accounts_pb2.ResolveApiKeyResponse:
        """An administrator of the test's organization."""
        assert request.secret == KEY
        principal = accounts_pb2.Principal(
            key_id="key_1",
            organization_id=self._organization_id,
            mode=common_pb2.MODE_TEST,
            scopes=[accounts_pb2.SCOPE_ADMIN],
        )
        return accounts_pb2.ResolveApiKeyResponse(principal=principal)

    async def SetTestClock(
        self, request: accounts_pb2.SetTestClockRequest, context: object
    ) -> accounts_pb2.SetTestClockResponse:
        """It is told what test clocks show."""
        return accounts_pb2.SetTestClockResponse()


@pytest.fixture
async def environment(
    world: World, database_url: str, nats_url: str, aggregator_address: str
) -> AsyncIterator[dict[str, str]]:
    """What the process is told."""
    server = grpc.aio.server()
    accounts_pb2_grpc.add_AccountsInternalServiceServicer_to_server(
        StandInAccounts(world.tenant.organization_id),  # type: ignore[abstract]
        server,
    )
    accounts_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield {
        "PATH": os.environ["PATH"],
        "USAGEFLOW_DATABASE_URL": database_url,
        "USAGEFLOW_NATS_URL": nats_url,
        "USAGEFLOW_INTERNAL_TOKEN": TOKEN.get_secret_value(),
        "USAGEFLOW_ACCOUNTS_ADDRESS": f"127.0.0.1:{accounts_port}",
        "USAGEFLOW_AGGREGATOR_ADDRESS": aggregator_address,
        "USAGEFLOW_INGEST_ADDRESS": "127.0.0.1:1",
        "USAGEFLOW_INVOICE_LEASE_S": "1",
        "USAGEFLOW_INVOICE_CHUNK_MAX": "10",
        "USAGEFLOW_INVOICE_WRITERS_MAX": "1",
    }
    await server.stop(0)


@asynccontextmanager
async def started(
    environment: dict[str, str], output: int = asyncio.subprocess.DEVNULL
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.invoicer",
        env=environment,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_process_invoices_what_is_over_tells_of_it_and_stops_when_asked(
    world: World, environment: dict[str, str], nats_url: str
) -> None:
    port = free_port()
    environment["USAGEFLOW_GRPC_LISTEN"] = f"127.0.0.1:{port}"
    world.aggregator.as_of = clock.now() + timedelta(hours=1)
    events: asyncio.Queue[events_pb2.BillingEvent] = asyncio.Queue()

    async def take(messages: list[Msg]) -> None:
        for message in messages:
            events.put_nowait(events_pb2.BillingEvent.FromString(message.data))

    notifier = await Messaging.connect(nats_url, "notifier")
    consuming = asyncio.create_task(notifier.consume(BILLING, "notifier", take, batch_max=10).run())
    pipe = asyncio.subprocess.PIPE
    async with (
        started(environment, pipe) as process,
        open_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = invoicer_pb2_grpc.InvoicerServiceStub(channel)
        invoice = await bill_last_month(stub, events)
        assert invoice.number == "INV-000001"
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
    await notifier.close()
    log = output.decode()
    assert process.returncode == 0, log
    assert "invoice_created" in log
    secrets = (KEY[12:], TOKEN.get_secret_value(), environment["USAGEFLOW_DATABASE_URL"])
    assert not any(secret in log for secret in secrets)


async def bill_last_month(
    stub: Any, events: "asyncio.Queue[events_pb2.BillingEvent]"
) -> pb.Invoice:
    """Subscribe somebody since 45 days ago; the invoice of the month that is over since."""

    async def call(name: str, request: Any) -> Any:
        return await getattr(stub, name)(
            request, timeout=WAIT_S, metadata=api_key_metadata(KEY), wait_for_ready=True
        )

    plan = pb.Plan(name="Pro", currency="USD", base_price="100.00")
    made = await call("CreatePlan", pb.CreatePlanRequest(plan=plan))
    start = Timestamp()
    start.FromDatetime(quarter_hour_of(clock.now() - timedelta(days=45)))
    await call(
        "CreateSubscription",
        pb.CreateSubscriptionRequest(
            customer_id="user_123",
            plan_id=made.plan.id,
            start_time=start,
            billing_anchor=pb.BILLING_ANCHOR_ANNIVERSARY,
        ),
    )
    types = [(await asyncio.wait_for(events.get(), WAIT_S)).type for _ in range(2)]
    assert sorted(types) == ["invoice.created", "subscription.created"]
    (invoice,) = (await call("ListInvoices", pb.ListInvoicesRequest())).invoices
    return invoice  # type: ignore[no-any-return]


async def test_killed_in_the_middle_and_started_again_it_bills_each_period_once(
    world: World, environment: dict[str, str]
) -> None:
    now = clock.now()
    world.at(now)
    plan = await world.plans.create_plan(world.tenant, pro_plan())
    for number in range(SUBSCRIPTIONS):
        start = quarter_hour_of(now - timedelta(days=75))
        given = SubscriptionInput(f"user_{number}", plan.id, start, "ANNIVERSARY")
        await world.subscriptions.create_subscription(world.tenant, given)
    async with started(environment) as process:
        await until_invoices(world, 20)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    killed_at = await count_invoices(world)
    assert killed_at < 2 * SUBSCRIPTIONS
    async with started(environment):
        await until_invoices(world, 2 * SUBSCRIPTIONS)
    async with world.database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT number FROM invoices WHERE status = 'PENDING' ORDER BY number")
        )
        numbers = list(rows.scalars())
        events = await connection.execute(
            text("SELECT count(*) FROM outbox WHERE encode(payload, 'escape') LIKE '%INV-%'")
        )
        told = events.scalar_one()
    assert numbers == [f"INV-{n:06d}" for n in range(1, 2 * SUBSCRIPTIONS + 1)]
    assert told == len(numbers)


async def test_killed_while_a_test_clock_waits_for_a_payment_it_charges_once_and_goes_on(
    world: World, environment: dict[str, str]
) -> None:
    """A retry's answer is on its way when the process is killed by signal 9."""
    now = clock.now()
    world.at(now)
    world.aggregator.as_of = now + timedelta(hours=1)
    plan = pro_plan(metrics=[], billing_period="WEEKLY")
    await world.subscribe(start=quarter_hour_of(now), plan=plan, anchor="ANNIVERSARY")
    await use_stripe(world)
    await world.payments.set_method(world.tenant, "user_123", METHOD, by_key="")
    test_clock = await world.clocks.create_clock(world.tenant, "user_123", None)

    async def ready() -> bool:
        found = await world.clocks.get_clock(world.tenant, test_clock.id)
        return found.status == "READY"

    async with stand_in_stripe(API_KEY) as stripe:
        stripe.script.extend([Does.DECLINE, Does.SUCCEED_AND_HANG])
        environment["USAGEFLOW_STRIPE_API_BASE"] = stripe.url
        environment["USAGEFLOW_PAYMENT_SECRETS_KEY"] = PROVIDER_SECRET
        async with started(environment) as process:
            await until("its time", ready, WAIT_S)
            there = now + timedelta(days=10)
            await world.clocks.advance_clock(world.tenant, test_clock.id, there)
            await until("the retry", lambda: stripe.charges, WAIT_S)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        waiting = await world.clocks.get_clock(world.tenant, test_clock.id)
        assert (waiting.status, waiting.target_time) == ("ADVANCING", there)
        async with world.database.transaction() as connection:
            # As if it had expired by now.
            await connection.execute(text("UPDATE collections SET lease_time = now()"))
        async with started(environment):
            await until("its time", ready, WAIT_S)
    (invoice,) = await world.all_invoices()
    assert invoice.status is InvoiceStatus.PAID
    attempts, _ = await world.payments.list_attempts(world.tenant, invoice.id)
    due = invoice.finalize_time
    assert due is not None
    assert [(each.state, each.start_time) for each in attempts] == [
        ("FAILED", due),
        ("SUCCEEDED", due + timedelta(days=1)),
    ]
    assert len(stripe.charges) == 1


async def until_invoices(world: World, count: int) -> None:
    """The process can't tell this one: look until there are that many."""

    async def written() -> bool:
        return await count_invoices(world) >= count

    await until(f"{count} invoices", written, WAIT_S)


async def count_invoices(world: World) -> int:
    async with world.database.transaction() as connection:
        found = await connection.execute(text("SELECT count(*) FROM invoices"))
        return int(found.scalar_one())
