"""Settings of ingest, read from `USAGEFLOW_*` environment variables."""

from pydantic import Field

from services.kit.settings import ServiceSettings


class IngestSettings(ServiceSettings):
    """What ingest needs besides what every service needs."""

    aggregator_address: str = Field(
        default="",
        description="host:port of aggregator, which organizations with strict metrics need",
    )
    committers: int = Field(
        default=2, ge=1, le=16, description="transactions in flight, each on its own connection"
    )
    batch_events_max: int = Field(
        default=10_000, ge=1, le=100_000, description="events that one transaction stores"
    )
    events_queued_max: int = Field(
        default=20_000, ge=10_000, description="events that may wait; beyond: RESOURCE_EXHAUSTED"
    )
    queued_bytes_max: int = Field(
        default=64 * 1024**2, ge=32 * 1024**2, description="the same bound for their size"
    )
    segment_events_max: int = Field(
        default=2_000_000,
        ge=100,
        description="about how many events a segment holds before the next one is opened",
    )
    key_filters_bytes_max: int = Field(
        default=512 * 1024**2,
        ge=1024**2,
        description="for the keys of closed segments, 3 bytes each; older segments are asked",
    )
    key_filters_memory_bytes_max: int = Field(
        default=9 * 1024**2,
        ge=0,
        description="how much of that stays in memory, the newest; the others lie in files",
    )
    key_filters_directory: str = Field(
        default="/var/tmp",  # noqa: S108 - the files have no name
        description="for these files, on a disk: in a tmpfs they would take memory all the same",
    )
    publish_events_queued_max: int = Field(
        default=20_000, ge=1, description="stored events that may wait in memory for NATS"
    )
    commit_timeout_s: float = Field(
        default=10.0, gt=0, le=60, description="how long one transaction may take"
    )
    test_pause_after_commit_s: float = Field(
        default=0.0, ge=0, le=600, description="for tests: wait between COMMIT and the answers"
    )
