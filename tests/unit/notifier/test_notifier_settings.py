"""Settings of notifier."""

import pytest
from pydantic import ValidationError

from services.notifier.settings import RETRY_DELAYS_S, NotifierSettings

REQUIRED = {
    "USAGEFLOW_NATS_URL": "nats://127.0.0.1:1",
    "USAGEFLOW_DATABASE_URL": "postgresql://127.0.0.1:1/x",
    "USAGEFLOW_INTERNAL_TOKEN": "t" * 32,
    "USAGEFLOW_WEBHOOK_SECRETS_KEY": "s" * 32,
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def test_without_a_word_only_public_https_is_allowed_and_the_schedule_is_the_long_one() -> None:
    settings = NotifierSettings()
    assert not settings.webhook_allow_private
    assert settings.webhook_retry_delays_s == RETRY_DELAYS_S
    assert settings.webhook_timeout_s == 15


def test_retry_delays_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USAGEFLOW_WEBHOOK_RETRY_DELAYS_S", "0, 0.5,2")
    assert NotifierSettings().webhook_retry_delays_s == (0, 0.5, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("USAGEFLOW_WEBHOOK_RETRY_DELAYS_S", ""),
        ("USAGEFLOW_WEBHOOK_RETRY_DELAYS_S", "0,-1"),
        ("USAGEFLOW_WEBHOOK_RETRY_DELAYS_S", "0,x"),
        ("USAGEFLOW_WEBHOOK_RETRY_DELAYS_S", ",".join(["1"] * 51)),
        ("USAGEFLOW_WEBHOOK_LEASE_S", "20"),
        ("USAGEFLOW_WEBHOOK_TIMEOUT_S", "0"),
        ("USAGEFLOW_WEBHOOK_SECRETS_KEY", ""),
        ("USAGEFLOW_WEBHOOK_SECRETS_KEY", "short"),
        ("USAGEFLOW_WEBHOOK_SECRETS_KEY", "s" * 32 + ",short"),
    ],
)
def test_a_setting_that_can_t_work_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        NotifierSettings()
