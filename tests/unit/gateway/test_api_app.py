"""The app of the JSON API, as a process makes it."""

from gateway import api
from gateway.calls import Channels, Services
from gateway.settings import GatewaySettings
from gateway.usage_live import LiveStreams


async def test_the_document_is_made_once_a_process() -> None:
    """It takes longer than all the rest of a gateway's start."""
    address = "127.0.0.1:1"
    channels = Channels(
        GatewaySettings.model_validate(
            {
                "nats_url": "nats://unused",
                "internal_token": "internal token of these tests, long",
                "accounts_address": address,
                "ingest_address": address,
                "aggregator_address": address,
                "invoicer_address": address,
                "notifier_address": address,
            }
        )
    )
    first, second = (api.build(Services(channels), LiveStreams()) for _ in range(2))
    assert first.state.openapi is second.state.openapi
    assert first.state.docs is second.state.docs
    await channels.close()
