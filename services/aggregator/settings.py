"""Settings of aggregator, read from `USAGEFLOW_*` environment variables."""

from pydantic import Field

from services.aggregator.domain import DIMENSION_VALUES_MAX
from services.kit.settings import ServiceSettings


class AggregatorSettings(ServiceSettings):
    """What aggregator needs besides what every service needs."""

    ingest_address: str = Field(description="host:port of ingest, which knows the watermark")
    usage_token_wait_s: float = Field(
        default=5.0, gt=0, le=60, description="how long a usage question waits for its token"
    )
    dimension_values_max: int = Field(
        default=DIMENSION_VALUES_MAX,
        ge=1,
        le=100_000,
        description="how many values each dimension of a metric that is defined from now on knows",
    )
    reconcile: bool = Field(
        default=True,
        description="whether usage is held against what was accepted, and repaired; tests of what "
        "goes wrong without it switch it off",
    )
    test_pause_after_commit_s: float = Field(
        default=0.0,
        ge=0,
        le=60,
        description="tests only: wait between COMMIT and the acknowledgement, to be killed there",
    )
