"""`usageflow webhooks listen`: a test-mode organization's events, forwarded to a URL near here."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from usageflow.notifier.v1 import notifier_pb2 as pb

from cli.errors import StackError
from cli.webhooks.client import Client, RefusedError, connected

Print = Callable[[str], None]
FORWARD_S_MAX = 15.0
RECONNECT_S = 1.0
USER_AGENT = "UsageFlow-Webhooks/1 (listen)"


async def listen(home: Path, forward_to: str, event_types: list[str], show: Print) -> None:
    """Forward events until interrupted; a stream that breaks off is opened again.

    What happens while none is open is not forwarded: see the deliveries for that.
    """
    check_url(forward_to)
    async with (
        connected(home) as client,
        httpx.AsyncClient(
            timeout=FORWARD_S_MAX, trust_env=False, headers={"user-agent": USER_AGENT}
        ) as http,
    ):
        while True:
            try:
                await _forward(client, http, forward_to, event_types, show)
            except RefusedError as error:
                if not error.away:
                    raise
                show(f"{error}; trying again")
            await asyncio.sleep(RECONNECT_S)


def check_url(url: str) -> None:
    """StackError unless it is a URL that can be posted to."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        fine = False
    if not fine:
        raise StackError(f"--forward-to: {url} must be a URL such as http://127.0.0.1:3000/hooks")


async def _forward(
    client: Client, http: httpx.AsyncClient, url: str, event_types: list[str], show: Print
) -> None:
    """One stream, until it ends."""
    async for response in client.listen(event_types):
        if response.secret:
            show(f"listening; verify with the secret {response.secret}")
        if response.HasField("event"):
            show(await _post(http, url, response.event))


async def _post(http: httpx.AsyncClient, url: str, event: pb.ListenedEvent) -> str:
    """Post an event as a webhook; the line to show. A receiver that fails is only told."""
    headers = {
        "content-type": "application/json",
        "webhook-id": event.id,
        "webhook-timestamp": str(event.timestamp),
        "webhook-signature": event.signature,
    }
    try:
        answer = await http.post(url, content=event.body, headers=headers)
    except httpx.HTTPError as error:
        return f"{event.type}  {event.id}  {type(error).__name__}"
    return f"{event.type}  {event.id}  {answer.status_code}"
