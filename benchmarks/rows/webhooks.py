"""Webhooks: how many are delivered, next to receivers that never answer, out of a large backlog."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.bench import Bench
from benchmarks.figures import Row, interleaved, median_of, merged, percentile
from benchmarks.fresh import fresh_bench
from benchmarks.messages import (
    WebhookFigures,
    WebhookFloor,
    WebhookFloorResult,
    WebhookReceiver,
)
from benchmarks.processes import run, serving
from benchmarks.processor import Meter
from benchmarks.sampling import resident_mb, sampled
from benchmarks.webhooks import ReceiverProbe, Webhooks

RECEIVER = "benchmarks.floors.webhook_receiver"
TYPE, OTHER_TYPE = "invoice.created", "invoice.paid"
# One event goes to each of these endpoints; 4 in flight to each is more than an organization gets.
ENDPOINTS = 20
IN_FLIGHT = 50
HOLES = 50
# Healthy receivers get this many a second beside the black holes, which get one each now and then.
HEALTHY_EVENTS_PER_S = 10.0
HOLE_EVENTS = 20
BACKLOG_ENDPOINTS = 20
SMALL_BACKLOG = 1_000
MEMORY_SAMPLE_S = 0.25


class Healthy:
    """A receiver that answers, and endpoints at it."""

    def __init__(self, bench: Bench, hooks: Webhooks, port: int) -> None:
        self.bench = bench
        self.hooks = hooks
        self.url = f"http://127.0.0.1:{port}/"
        self.probe = ReceiverProbe(port)
        self.endpoint_ids = hooks.register(port, ENDPOINTS, TYPE)
        self._delivered = 0
        self.micros: list[dict[str, float]] = []

    def deliver(self, count: int, rate_per_s: float | None = None) -> WebhookFigures:
        """Send so many webhooks (a multiple of ENDPOINTS), and wait until all have come."""
        meter = Meter(self.bench.stack.connection.pids)
        self.hooks.send(TYPE, count // ENDPOINTS, rate_per_s)
        figures = self.probe.await_all(count // ENDPOINTS * ENDPOINTS)
        used = meter.used(figures.received)
        self.micros.append(dict(used.micros))
        self._delivered += figures.received
        latencies = sorted(figures.latencies_ms)
        self.bench.report(
            f"{rate(figures):,.0f} webhooks/s, p99 {percentile(latencies, 0.99):.1f} ms; {used}"
        )
        return figures

    def check(self) -> None:
        """BenchmarkError unless every delivery has succeeded at its first attempt."""
        self.hooks.await_recorded(self.endpoint_ids, self._delivered)


def rate(figures: WebhookFigures) -> float:
    """Webhooks a second from the first to the last."""
    return (figures.received - 1) / figures.span_s


def p99_ms(figures: WebhookFigures) -> float:
    """From an event's publishing to its arrival."""
    return percentile(sorted(figures.latencies_ms), 0.99)


@contextmanager
def healthy_stack(bench: Bench) -> Iterator[Healthy]:
    """A fresh stack with endpoints at a healthy receiver, warmed up."""
    with (
        fresh_bench(bench.plan, bench.report) as fresh,
        serving(RECEIVER, WebhookReceiver()) as port,
    ):
        hooks = Webhooks(fresh.stack)
        try:
            healthy = Healthy(fresh, hooks, port)
            healthy.deliver(bench.plan.webhooks // 4)
            yield healthy
            healthy.check()
        finally:
            hooks.close()


def delivered(bench: Bench, name: str) -> list[Row]:
    """Billing events on NATS, webhooks at a receiver; floor: a bare aiohttp client in a loop."""
    plan = bench.plan
    with healthy_stack(bench) as healthy:
        floor = WebhookFloor(
            url=healthy.url,
            sample=healthy.probe.sample(),
            in_flight=IN_FLIGHT,
            measure_s=plan.floor_s,
        )

        def bare() -> float:
            result = run("benchmarks.floors.webhook_post", floor, WebhookFloorResult)
            healthy.probe.take()
            return bench.floor(result.posts_per_s)

        measured, floors = interleaved(lambda: healthy.deliver(plan.webhooks), bare, plan.rounds)
        micros = merged(healthy.micros[1:])
    return [
        Row(name, median_of(measured, rate), "webhooks/s", sum(floors) / len(floors), micros=micros)
    ]


def black_holes(bench: Bench, name: str) -> list[Row]:
    """The p99 of healthy endpoints beside black holes; floor: the same without them."""
    with healthy_stack(bench) as healthy:
        count = int(HEALTHY_EVENTS_PER_S * bench.plan.webhooks_s) * ENDPOINTS

        def beside(holes: int) -> WebhookFigures:
            with serving(RECEIVER, WebhookReceiver(black_hole=True)) as port:
                hole_ids = healthy.hooks.register(port, holes, OTHER_TYPE)
                healthy.hooks.send(OTHER_TYPE, HOLE_EVENTS)
                figures = healthy.deliver(count, HEALTHY_EVENTS_PER_S)
                healthy.hooks.remove(hole_ids)
            return figures

        measured, floors = interleaved(
            lambda: beside(HOLES), lambda: p99_ms(beside(0)), bench.plan.rounds
        )
    value = median_of(measured, p99_ms)
    return [Row(name, value, "ms (p99)", median_of(floors, float), None, value)]


def backlog(bench: Bench, name: str) -> list[Row]:
    """Webhooks/s while a large backlog waits for black holes; floor: while a small one does."""

    def beside(pending: int) -> tuple[float, float]:
        with (
            healthy_stack(bench) as healthy,
            serving(RECEIVER, WebhookReceiver(black_hole=True)) as port,
        ):
            hole_ids = healthy.hooks.register(port, BACKLOG_ENDPOINTS, OTHER_TYPE)
            healthy.hooks.backlog(hole_ids, pending)
            bench.report(f"{pending:,} deliveries wait")
            pids = {"notifier": healthy.bench.stack.connection.pids["notifier"]}
            with sampled(lambda: resident_mb(pids), MEMORY_SAMPLE_S) as samples:
                figures = healthy.deliver(bench.plan.webhooks)
            return rate(figures), max(sizes["notifier"] for _, sizes in samples.taken)

    small, _ = beside(SMALL_BACKLOG)
    large, peak_mb = beside(bench.plan.backlog)
    return [
        Row(name, large, "webhooks/s", small),
        Row(f"{name}_notifier_max_mb", peak_mb, "MB"),
    ]


ROWS: dict[str, Callable[[Bench, str], list[Row]]] = {
    "webhooks_delivered": delivered,
    "webhooks_black_holes": black_holes,
    "webhooks_backlog": backlog,
}
