"""Settings of the gateway, read from `USAGEFLOW_*` environment variables."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from gateway.client import networks
from services.kit.settings import ProcessSettings


class GatewaySettings(ProcessSettings):
    """Where it listens, whom it calls, and the bounds of its queues."""

    http_listen: str = Field(default="127.0.0.1:8080", description="host:port; port 0: a free one")
    ingest_address: str = Field(description="host:port of ingest")
    aggregator_address: str = Field(description="host:port of aggregator")
    invoicer_address: str = Field(description="host:port of invoicer")
    notifier_address: str = Field(description="host:port of notifier")

    public_url: str = Field(
        default="",
        pattern=r"^(https?://[^/]+/?)?$",
        description="address that people use; with https:// browsers are told to use that alone",
    )
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...],
        NoDecode,
        BeforeValidator(networks),
    ] = Field(
        default=(), description="networks whose X-Forwarded-For is believed, as 10.0.0.0/8,::1"
    )

    access_log_track: bool = Field(
        default=False,
        description="whether the access log has the requests to /api/track and /api/track/batch, "
        "too; else they are counted in metrics alone, and take half of the time",
    )

    # Each takes about 8 KiB, with an event that waits about 10 KiB.
    connections_max: int = Field(default=10_000, ge=1)
    requests_in_flight_max: int = Field(default=4_096, ge=1)
    # A batch request holds its body (up to 4 MiB) while it is worked on.
    batch_requests_in_flight_max: int = Field(default=8, ge=1)
    request_arrival_s_max: float = Field(
        default=20.0, gt=0, description="seconds in which a request must have arrived whole"
    )

    drain_s: float = Field(
        default=0.0,
        ge=0,
        le=30,
        description="seconds in which a gateway that stops still takes requests, while balancers "
        "learn by /readyz that it leaves; at most half of SHUTDOWN_S",
    )

    ingest_calls_in_flight_max: int = Field(default=2, ge=1, le=16)
    ingest_events_per_call_max: int = Field(default=2_000, ge=1, le=10_000)
    ingest_bytes_per_call_max: int = Field(default=4 * 1024 * 1024, ge=1, le=12 * 1024 * 1024)
    ingest_events_waiting_max: int = Field(default=20_000, ge=1)
    ingest_bytes_waiting_max: int = Field(default=32 * 1024 * 1024, ge=1)
    ingest_wait_s_max: float = Field(
        default=2.0,
        gt=0,
        description="seconds an event may wait for its call; while one does, others are refused",
    )
    ingest_call_s_max: float = Field(default=5.0, gt=0)
    ingest_answer_s_max: float = Field(
        default=10.0, gt=0, description="seconds an event may wait for its receipt, queue included"
    )
    ingest_pause_s: float = Field(
        default=0.002,
        ge=0,
        le=0.1,
        description="seconds between two calls to ingest when events are waiting",
    )

    @model_validator(mode="after")
    def _leave_time_to_stop(self) -> Self:
        if self.drain_s > self.shutdown_s / 2:
            raise ValueError("USAGEFLOW_DRAIN_S must be at most half of USAGEFLOW_SHUTDOWN_S")
        return self
