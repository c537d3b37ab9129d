"""Settings of accounts, read from `USAGEFLOW_*` environment variables."""

from pydantic import Field, SecretStr

from services.kit.settings import SECRET_CHARS_MIN, ServiceSettings


class AccountsSettings(ServiceSettings):
    """What accounts needs besides what every service needs."""

    key_pepper: SecretStr = Field(
        min_length=SECRET_CHARS_MIN, description="secret under which API keys are hashed"
    )
