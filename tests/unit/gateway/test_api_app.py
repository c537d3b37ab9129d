"""The app of the JSON API, as a process makes it."""

import asyncio

from gateway import api
from gateway.calls import Channels, Services
from gateway.docs.description import description_of
from gateway.settings import GatewaySettings
from gateway.usage_live import LiveStreams


async def test_the_document_is_made_once_a_process_and_not_at_its_start() -> None:
    """Also when several ask at the same time for the first time, of apps of their own."""
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
    made, same, again = await asyncio.gather(*map(description_of, (first, first, second)))
    assert made is same is again
    await channels.close()
