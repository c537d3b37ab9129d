"""Settings every process shares, read from `USAGEFLOW_*` environment variables."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRET_CHARS_MIN = 32


class ProcessSettings(BaseSettings):
    """What the gateway and the services have in common."""

    model_config = SettingsConfigDict(env_prefix="USAGEFLOW_", extra="ignore")

    nats_url: SecretStr = Field(description="nats://user:password@host:port")
    internal_token: SecretStr = Field(
        min_length=SECRET_CHARS_MIN, description="shared secret of UsageFlow's own processes"
    )
    accounts_address: str = Field(default="", description="host:port of accounts")
    metrics_listen: str = Field(default="", description="host:port of Prometheus metrics, or empty")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    shutdown_s: float = Field(default=20.0, gt=0, le=60)


class ServiceSettings(ProcessSettings):
    """What the services have in common: each has a database and a gRPC port."""

    database_url: SecretStr = Field(description="postgresql://role:password@host:port/database")
    database_pool_size: int = Field(default=5, ge=1, le=50)
    grpc_listen: str = Field(default="127.0.0.1:0", description="host:port; port 0: a free one")
