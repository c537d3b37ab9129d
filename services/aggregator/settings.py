"""Settings of aggregator, read from `USAGEFLOW_*` environment variables."""

from pydantic import Field

from services.kit.settings import ServiceSettings


class AggregatorSettings(ServiceSettings):
    """What aggregator needs besides what every service needs."""

    ingest_address: str = Field(description="host:port of ingest, which knows the watermark")
    test_pause_after_commit_s: float = Field(
        default=0.0,
        ge=0,
        le=60,
        description="tests only: wait between COMMIT and the acknowledgement, to be killed there",
    )
