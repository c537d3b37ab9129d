"""Wiring of the gateway."""

from typing import cast

from gateway import api
from gateway.access import Access
from gateway.batch import TrackBatch
from gateway.calls import Channels, IngestSink, Services
from gateway.client import Clients
from gateway.coalescer import Coalescer, Limits
from gateway.dashboard.app import Dashboard
from gateway.entry import Entry, Handler
from gateway.health import Readiness
from gateway.portal.app import Portal
from gateway.quick import NoQuickTrack, QuickTrack
from gateway.rate_exchange import RateExchange
from gateway.rates import Rates
from gateway.server import HttpServer
from gateway.sessions import Sessions
from gateway.settings import GatewaySettings
from gateway.track import Track
from gateway.usage_live import LiveStreams
from gateway.wire import RequestIds
from services.kit.auth import KeyCache
from services.kit.messaging import Messaging
from services.kit.runtime import Runtime


async def main() -> None:
    """Serve HTTP until the process is asked to stop."""
    settings = GatewaySettings()
    async with Runtime("gateway", settings) as runtime:
        messaging = await Messaging.connect(settings.nats_url.get_secret_value(), "gateway")
        runtime.on_stop("nats", messaging.close)
        channels = Channels(settings)
        runtime.on_stop("channels", channels.close)
        keys = KeyCache(channels.accounts, settings.internal_token, messaging)
        await keys.start()
        rates = Rates()
        exchange = RateExchange(rates, messaging)
        await exchange.start()
        runtime.spawn("rates", exchange.run)
        server = build(settings, channels, keys, rates)
        await server.start()
        runtime.on_stop("http", server.stop)
        await runtime.wait()


def build(
    settings: GatewaySettings, channels: Channels, keys: KeyCache, rates: Rates
) -> HttpServer:
    """The HTTP server, not started; needs a running loop."""
    sink = IngestSink(channels, settings.internal_token)
    coalescer = Coalescer(sink, _limits(settings))
    live = LiveStreams()
    services = Services(channels)
    clients = Clients(settings.trusted_proxies)
    access = Access(keys, clients, rates, settings.internal_token)
    sessions = Sessions(keys, channels, settings.internal_token, clients, settings.public_url)
    pages = Dashboard(services, sessions)

    readiness = Readiness({"accounts": channels.accounts, "ingest": channels.ingest})

    async def before_stop() -> None:
        readiness.leaving = True
        pages.stop()
        await live.close()

    request_ids = RequestIds()
    entry = Entry(
        track=Track(access, coalescer, request_ids),
        batch=TrackBatch(access, coalescer, request_ids, settings.batch_requests_in_flight_max),
        api=cast("Handler", api.build(services, live)),
        pages=pages,
        portal=Portal(services, keys, sessions),
        access=access,
        sessions=sessions,
        readiness=readiness,
        request_ids=request_ids,
        requests_in_flight_max=settings.requests_in_flight_max,
        log_track=settings.access_log_track,
    )
    # What is quick is not logged: a line takes longer than the event.
    quick = QuickTrack(keys, rates, coalescer, request_ids)
    return HttpServer(
        entry,
        NoQuickTrack() if settings.access_log_track else quick,
        settings.http_listen,
        connections_max=settings.connections_max,
        shutdown_s=settings.shutdown_s,
        drain_s=settings.drain_s,
        request_arrival_s_max=settings.request_arrival_s_max,
        strict_https=sessions.secure,
        before_stop=before_stop,
    )


def _limits(settings: GatewaySettings) -> Limits:
    return Limits(
        calls_in_flight_max=settings.ingest_calls_in_flight_max,
        events_per_call_max=settings.ingest_events_per_call_max,
        bytes_per_call_max=settings.ingest_bytes_per_call_max,
        events_waiting_max=settings.ingest_events_waiting_max,
        bytes_waiting_max=settings.ingest_bytes_waiting_max,
        wait_s_max=settings.ingest_wait_s_max,
        call_s_max=settings.ingest_call_s_max,
        answer_s_max=settings.ingest_answer_s_max,
        pause_s=settings.ingest_pause_s,
    )
