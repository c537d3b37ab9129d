"""Settings of notifier, read from `USAGEFLOW_*` environment variables."""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from services.kit.settings import SECRET_CHARS_MIN, ServiceSettings

# 0 s, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: as in the Standard Webhooks guide.
RETRY_DELAYS_S = (
    0.0,
    5.0,
    300.0,
    1_800.0,
    7_200.0,
    18_000.0,
    36_000.0,
    50_400.0,
    72_000.0,
    86_400.0,
)
RETRY_DELAYS_MAX = 50


class NotifierSettings(ServiceSettings):
    """What notifier needs besides what every service needs."""

    webhook_allow_private: bool = Field(
        default=False, description="allow http and addresses that are not public: development only"
    )
    webhook_secrets_key: SecretStr = Field(
        description="key under which secrets and headers of endpoints are stored, >= 32"
        " characters; older ones after it, with commas between, are only read with"
    )
    webhook_retry_delays_s: Annotated[tuple[float, ...], NoDecode] = Field(
        default=RETRY_DELAYS_S,
        min_length=1,
        max_length=RETRY_DELAYS_MAX,
        description="seconds before each attempt, with commas between",
    )
    webhook_timeout_s: float = Field(default=15.0, gt=0, le=60, description="an attempt in all")
    webhook_lease_s: float = Field(
        default=60.0, gt=0, description="how long a claimed delivery is kept from other workers"
    )
    webhook_retention_days: int = Field(
        default=30, ge=1, le=3_650, description="how long deliveries that are done are kept"
    )
    webhook_poll_s: float = Field(default=1.0, gt=0, le=60)
    webhook_in_flight_max: int = Field(default=200, ge=1, le=2_000)
    webhook_endpoint_in_flight_max: int = Field(default=4, ge=1, le=100)

    @property
    def lease(self) -> timedelta:
        """webhook_lease_s as a duration."""
        return timedelta(seconds=self.webhook_lease_s)

    @property
    def secrets_keys(self) -> list[str]:
        """The keys in webhook_secrets_key: the first seals, all open."""
        return [key.strip() for key in self.webhook_secrets_key.get_secret_value().split(",")]

    @field_validator("webhook_retry_delays_s", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(not 0 <= delay_s <= 30 * 86_400 for delay_s in self.webhook_retry_delays_s):
            raise ValueError("retry delays must be from 0 s to 30 days")
        if any(len(key) < SECRET_CHARS_MIN for key in self.secrets_keys):
            raise ValueError(f"webhook secrets keys must have {SECRET_CHARS_MIN} characters each")
        if self.webhook_lease_s < 2 * self.webhook_timeout_s:
            raise ValueError("a lease must last for at least two attempts")
        return self
