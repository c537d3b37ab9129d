"""`usageflow demo`: plays the whole billing flow over the public HTTP API, checking each figure."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from cli.webhook_receiver import ReceivedWebhook, WebhookReceiver

REQUEST_TIMEOUT_S = 30.0
INVOICE_WAIT_S = 45.0
WEBHOOK_WAIT_S = 30.0
POLL_S = 0.1

API_CALLS = 12_000
BATCH_EVENTS = 1_000
SINGLE_EVENTS = 100
REPEATED_EVENTS = 20
# The event's time may lie 35 days back; a day less leaves room for slow machines.
EVENT_AGE_DAYS_MAX = 34

METRICS = (
    {"key": "API_CALL", "name": "API calls", "unit": "calls"},
    {"key": "AI_TOKEN", "name": "AI tokens", "unit": "tokens", "dimensions": ["model"]},
    {"key": "STORAGE_GB", "name": "Storage", "unit": "GB"},
    {"key": "JOB_RUN", "name": "Background jobs", "unit": "jobs"},
)
PLAN = {
    "name": "Pro",
    "currency": "USD",
    "basePrice": "100.00",
    "billingPeriod": "MONTHLY",
    "metrics": [
        {
            "metric": "API_CALL",
            "model": "PER_UNIT",
            "includedUnits": "10000",
            "unitPrice": "0.01",
        },
        {"metric": "AI_TOKEN", "model": "PER_UNIT", "unitPrice": "0.00002"},
        {"metric": "STORAGE_GB", "model": "PER_UNIT", "unitPrice": "0.10"},
        {"metric": "JOB_RUN", "model": "PER_UNIT", "unitPrice": "0.05"},
    ],
}
# 100.00 + (12,000 - 10,000) x 0.01 + 1,500 x 0.00002 = 100.00 + 20.00 + 0.03
WANTED_AMOUNTS = {"user_123": "120.03", "user_456": "100.20", "user_789": "100.05"}
WANTED_LINES = {"": "100.00", "API_CALL": "20.00", "AI_TOKEN": "0.03"}


class WrongFigureError(Exception):
    """The stack answered with something else than the arithmetic says."""


@dataclass(frozen=True, slots=True)
class LastMonth:
    """The calendar month before this one, in UTC, and the part of it that events may lie in."""

    start: datetime
    end: datetime
    first_event: datetime

    @classmethod
    def before(cls, now: datetime) -> "LastMonth":
        """The month before the one that `now` lies in."""
        end = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        start = (end - timedelta(days=1)).replace(day=1)
        oldest = (now - timedelta(days=EVENT_AGE_DAYS_MAX)).replace(microsecond=0)
        return cls(start, end, max(start, oldest))

    def times(self, count: int) -> Iterator[str]:
        """`count` instants, evenly over the part that events may lie in."""
        step = (self.end - self.first_event) / count
        for number in range(count):
            yield rfc3339(self.first_event + number * step)


class Demo:
    """The billing flow of the integration page, step by step."""

    def __init__(self, url: str, api_key: str, console: Console) -> None:
        self._console = console
        self._http = httpx.Client(
            base_url=url,
            headers={"x-usageflow-api-key": api_key},
            timeout=REQUEST_TIMEOUT_S,
            trust_env=False,
        )
        self._run = secrets.token_hex(4)
        self._month = LastMonth.before(datetime.now(UTC))

    def play(self) -> None:
        """Play every step; WrongFigureError at the first figure that is off."""
        with WebhookReceiver() as receiver:
            self._define()
            secret = self._register(receiver)
            self._send_usage()
            self._show_usage()
            self._subscribe()
            invoices = {customer: self._await_invoice(customer) for customer in WANTED_AMOUNTS}
            self._show_invoice(invoices["user_123"])
            for customer, invoice in invoices.items():
                self._await_webhook(receiver, secret, "invoice.created", invoice)
                self._expect(f"invoice of {customer}", invoice["amount"], WANTED_AMOUNTS[customer])
            self._pay(receiver, secret, invoices["user_123"])

    def _define(self) -> None:
        for metric in METRICS:
            self._post("/api/metrics", metric)
        self._plan_id = self._post("/api/plans", PLAN)["id"]
        self._done(f"defined {len(METRICS)} metrics and the plan Pro: 100.00 USD a month")

    def _register(self, receiver: WebhookReceiver) -> str:
        endpoint = self._post(
            "/api/webhooks",
            {
                "url": receiver.url,
                "events": ["invoice.created", "invoice.paid"],
                "description": "the demo's own receiver",
            },
        )
        self._done(f"registered the webhook endpoint {receiver.url}")
        return str(endpoint["secret"])

    def _send_usage(self) -> None:
        started_s = time.perf_counter()
        events = [
            {
                "metric": "API_CALL",
                "amount": 1,
                "customerId": "user_123",
                "timestamp": timestamp,
                "idempotencyKey": f"{self._run}-call-{number}",
            }
            for number, timestamp in enumerate(self._month.times(API_CALLS))
        ]
        singles, rest = events[:SINGLE_EVENTS], events[SINGLE_EVENTS:]
        for start in range(0, len(rest), BATCH_EVENTS):
            batch = rest[start : start + BATCH_EVENTS]
            self._batch(batch, accepted=len(batch), duplicates=0)
        again = rest[:BATCH_EVENTS]
        self._batch(again, accepted=0, duplicates=len(again))
        for event in singles:
            self._track(event, replayed=False)
        for event in singles[:REPEATED_EVENTS]:
            self._track(event, replayed=True)
        timestamp = rfc3339(self._month.end - timedelta(hours=36))
        for event in (
            {
                "metric": "AI_TOKEN",
                "amount": 1500,
                "customerId": "user_123",
                "metadata": {"model": "gpt-4"},
            },
            {"metric": "STORAGE_GB", "amount": 2, "customerId": "user_456"},
            {"metric": "JOB_RUN", "amount": 1, "customerId": "user_789"},
        ):
            key = f"{self._run}-{event['metric']}"
            self._track({**event, "timestamp": timestamp, "idempotencyKey": key}, replayed=False)
        self._done(
            f"sent {API_CALLS:,} API calls of user_123 (and {BATCH_EVENTS + REPEATED_EVENTS:,} of "
            "them twice), 1,500 AI tokens, 2 GB of user_456, 1 job of user_789",
            started_s,
        )

    def _batch(self, events: list[dict[str, Any]], *, accepted: int, duplicates: int) -> None:
        answer = self._post("/api/track/batch", {"events": events})
        got = {name: answer[name] for name in ("accepted", "duplicates", "conflicts", "rejected")}
        wanted = {"accepted": accepted, "duplicates": duplicates, "conflicts": 0, "rejected": 0}
        self._expect("receipts of a batch", got, wanted)

    def _track(self, event: dict[str, Any], *, replayed: bool) -> None:
        body = {name: value for name, value in event.items() if name != "idempotencyKey"}
        headers = {"Idempotency-Key": event["idempotencyKey"]}
        response = self._http.post("/api/track", json=body, headers=headers)
        self._expect("status of /api/track", response.status_code, 200)
        self._expect("Idempotent-Replayed", "idempotent-replayed" in response.headers, replayed)

    def _show_usage(self) -> None:
        started_s = time.perf_counter()
        self._await_usage("API_CALL", "user_123", Decimal(API_CALLS))
        self._await_usage("STORAGE_GB", "user_456", Decimal(2))
        self._await_usage("JOB_RUN", "user_789", Decimal(1))
        by_model = self._usage("AI_TOKEN", "user_123", groupBy="model")
        self._expect("AI_TOKEN by model", [row["group"] for row in by_model], [{"model": "gpt-4"}])
        self._expect("tokens of gpt-4", by_model[0]["value"], "1500")
        self._done("usage of last month: API_CALL 12000, AI_TOKEN gpt-4 1500", started_s)

    def _await_usage(self, metric: str, customer: str, wanted: Decimal) -> None:
        def value() -> bool:
            rows = self._usage(metric, customer)
            return bool(rows) and Decimal(rows[0]["value"]) == wanted

        self._await(f"usage of {metric} = {wanted}", value, INVOICE_WAIT_S)

    def _usage(self, metric: str, customer: str, **parameters: str) -> list[dict[str, Any]]:
        answer = self._get(
            "/api/usage",
            metric=metric,
            customerId=customer,
            **{"from": rfc3339(self._month.start), "to": rfc3339(self._month.end)},
            **parameters,
        )
        return list(answer["data"])

    def _subscribe(self) -> None:
        for customer in WANTED_AMOUNTS:
            self._post(
                "/api/subscriptions",
                {
                    "customerId": customer,
                    "planId": self._plan_id,
                    "startsAt": rfc3339(self._month.start),
                },
            )
        self._done(f"subscribed {', '.join(WANTED_AMOUNTS)} from {self._month.start:%-d %B %Y}")

    def _await_invoice(self, customer: str) -> dict[str, Any]:
        def invoices() -> list[dict[str, Any]]:
            return list(self._get("/api/invoices", customerId=customer)["data"])

        self._await(f"the invoice of {customer}", lambda: bool(invoices()), INVOICE_WAIT_S)
        found = invoices()
        self._expect(f"number of invoices of {customer}", len(found), 1)
        return found[0]

    def _show_invoice(self, invoice: dict[str, Any]) -> None:
        self._done(f"last month is over: invoice {invoice['number']} was made by itself")
        table = Table(show_edge=False, pad_edge=False)
        table.add_column("line")
        table.add_column("quantity", justify="right")
        table.add_column("amount", justify="right")
        for line in invoice["lines"]:
            table.add_row(line["description"], line["quantity"], line["amount"])
        table.add_section()
        table.add_row("total", "", f"{invoice['amount']} {invoice['currency']}")
        self._console.print(table)
        lines = {line["metric"] or "": line["amount"] for line in invoice["lines"]}
        for metric, amount in WANTED_LINES.items():
            self._expect(f"line {metric or 'base price'}", lines.get(metric), amount)
        total = sum(Decimal(line["amount"]) for line in invoice["lines"])
        self._expect("sum of the lines", total, Decimal(invoice["amount"]))
        self._expect("status", invoice["status"], "PENDING")

    def _pay(self, receiver: WebhookReceiver, secret: str, invoice: dict[str, Any]) -> None:
        paid = self._post(f"/api/invoices/{invoice['id']}/pay", {})
        self._expect("status after paying", paid["status"], "PAID")
        self._await_webhook(receiver, secret, "invoice.paid", paid)

    def _await_webhook(
        self, receiver: WebhookReceiver, secret: str, kind: str, invoice: dict[str, Any]
    ) -> None:
        def matching() -> list[ReceivedWebhook]:
            return [
                webhook
                for webhook in receiver.received()
                if (body := json.loads(webhook.body))["type"] == kind
                and body["data"]["invoiceId"] == invoice["id"]
            ]

        self._await(f"the webhook {kind}", lambda: bool(matching()), WEBHOOK_WAIT_S)
        for webhook in matching():
            data = webhook.verified(secret)["data"]
            self._expect(f"amount in {kind}", data["amount"], invoice["amount"])
            self._expect(f"status in {kind}", data["status"], invoice["status"])
        self._done(f"webhook {kind} for {invoice['number']}: signature verified")

    def _await(self, what: str, arrived: Callable[[], bool], wait_s: float) -> None:
        deadline_s = time.monotonic() + wait_s
        while not arrived():
            if time.monotonic() > deadline_s:
                raise WrongFigureError(f"{what} did not come within {wait_s:.0f} s")
            time.sleep(POLL_S)

    def _expect(self, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            raise WrongFigureError(f"{what}: got {got}, wanted {wanted}")

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        return self._answer(self._http.get(path, params=parameters))

    def _post(self, path: str, body: object) -> dict[str, Any]:
        return self._answer(self._http.post(path, json=body))

    def _answer(self, response: httpx.Response) -> dict[str, Any]:
        if not response.is_success:
            request = response.request
            raise WrongFigureError(
                f"{request.method} {request.url.path}: {response.status_code} {response.text[:500]}"
            )
        return dict(response.json())

    def _done(self, sentence: str, started_s: float | None = None) -> None:
        took = "" if started_s is None else f" [dim]{time.perf_counter() - started_s:.1f} s[/dim]"
        self._console.print(f"[green]✓[/green] {sentence}{took}", highlight=False)


def rfc3339(instant: datetime) -> str:
    """An instant in UTC as the API writes it."""
    return instant.isoformat().replace("+00:00", "Z")
