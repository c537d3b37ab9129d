"""Two of everything at once: totals right, one invoice a period, one delivery an event."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from cli.connection import Connection
from cli.plan import PARTS
from cli.stack import running_stack
from cli.webhook_receiver import WebhookReceiver
from tests.e2e.api import Api, new_key, new_organization, wait_for
from tests.e2e.homes import copy_home

ENVIRON = {
    "USAGEFLOW_REPLICAS": ",".join(f"{part}=2" for part in PARTS),
    "USAGEFLOW_INVOICE_GRACE_S": "0",
}
CUSTOMERS = 12
CLIENTS = 4
EVENTS_A_CLIENT = 300


def send(api: Api, keys: list[str], timestamp: str) -> None:
    """Send events that another client sends too, under the same keys."""
    for number, key in enumerate(keys):
        customer = f"customer_{number % CUSTOMERS}"
        response = api.track(key, customerId=customer, timestamp=timestamp)
        assert response.status_code == 200, response.text


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of `two_of_everything`."""
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def two_of_everything(home: Path, prepared_home: Path) -> Iterator[Connection]:
    """A stack with two replicas of each part."""
    with running_stack(copy_home(prepared_home, home), environ=ENVIRON) as connection:
        yield connection


def test_replicas_run_side_by_side(home: Path, two_of_everything: Connection) -> None:
    """Each has a pid and a port; every gateway is told."""
    connection = two_of_everything
    wanted = {"postgres", "nats", *PARTS, *(f"{part}-2" for part in PARTS)}
    assert set(connection.pids) == wanted
    assert len(connection.http_replicas) == 1
    key = new_organization(home, connection.grpc["accounts"])
    urls = (connection.http, *connection.http_replicas)
    answers = [Api(url, key).track("both") for url in urls]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert ["idempotent-replayed" in answer.headers for answer in answers] == [False, True]


def test_two_replicas_of_everything_bill_every_event_once(two_of_everything: Connection) -> None:
    connection = two_of_everything
    this_month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    last_month = (this_month - timedelta(days=1)).replace(day=1)
    timestamp = (this_month - timedelta(hours=1)).isoformat()
    with WebhookReceiver() as receiver:
        urls = [connection.http, *connection.http_replicas]
        assert len(urls) == 2
        apis = [Api(url, connection.api_key) for url in urls]
        # Each pair of clients sends the same events through different gateways.
        keys = [[new_key() for _ in range(EVENTS_A_CLIENT)] for _ in range(CLIENTS // 2)]
        clients = [
            threading.Thread(
                target=send, args=(Api(urls[n % 2], connection.api_key), keys[n // 2], timestamp)
            )
            for n in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        total = str(EVENTS_A_CLIENT * CLIENTS // 2)
        period = {"from": last_month.isoformat(), "to": this_month.isoformat()}
        wait_for("all events", lambda: apis[1].usage(**period) == total, 60)

        api = apis[0]
        api.post("/api/webhooks", {"url": receiver.url, "events": ["invoice.created"]})
        price = {"metric": "API_CALL", "model": "PER_UNIT", "unitPrice": "0.50"}
        plan = {"name": "P", "currency": "USD", "basePrice": "1.00", "metrics": [price]}
        plan_id = api.post("/api/plans", plan)["id"]
        for number in range(CUSTOMERS):
            body = {
                "customerId": f"customer_{number}",
                "planId": plan_id,
                "startsAt": last_month.isoformat(),
            }
            apis[number % 2].post("/api/subscriptions", body)
        wait_for("webhooks", lambda: len(receiver.received()) >= CUSTOMERS, 60)
        invoices = api.get("/api/invoices", limit="100")["data"]
        # 1.00 + 50 events x 0.50
        assert Counter(invoice["amount"] for invoice in invoices) == {"26.00": CUSTOMERS}
        assert sorted(invoice["number"] for invoice in invoices) == [
            f"INV-{number:06}" for number in range(1, CUSTOMERS + 1)
        ]
        created = Counter(
            json.loads(webhook.body)["data"]["invoiceId"] for webhook in receiver.received()
        )
        assert created == {invoice["id"]: 1 for invoice in invoices}


def test_stranger_to_the_network_finds_nothing_beyond_loopback(stack: Connection) -> None:
    addresses = [stack.http, *stack.grpc.values(), stack.nats]
    assert all("127.0.0.1" in address for address in addresses)
    assert httpx.get(f"{stack.http}/healthz", trust_env=False).status_code == 200
