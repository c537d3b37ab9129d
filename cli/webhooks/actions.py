"""What the commands do: list, replay, tail."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from usageflow.notifier.v1 import notifier_pb2 as pb

from cli.webhooks.client import Client, RefusedError, connected
from cli.webhooks.show import delivery_line, endpoint_lines

Print = Callable[[str], None]
PAGE_SIZE = 100
TAIL_POLL_S = 1.0
TAILED_MAX = 100  # of the newest deliveries, whose attempts are followed


async def list_endpoints(home: Path, show: Print) -> None:
    """Every endpoint, and what became of its deliveries of the last 24 hours."""
    async with connected(home) as client:
        async for endpoint in _endpoints(client):
            stats = await client.call(
                client.stub.GetEndpointStats, pb.GetEndpointStatsRequest(endpoint_id=endpoint.id)
            )
            for line in endpoint_lines(endpoint, stats, datetime.now(UTC)):
                show(line)


async def _endpoints(client: Client) -> AsyncIterator[pb.Endpoint]:
    token = ""
    while True:
        request = pb.ListEndpointsRequest(page_size=PAGE_SIZE, page_token=token)
        answer = await client.call(client.stub.ListEndpoints, request)
        for endpoint in answer.endpoints:
            yield endpoint
        token = answer.next_page_token
        if not token:
            return


async def replay_one(home: Path, delivery_id: str, show: Print) -> None:
    """Send one delivery again."""
    async with connected(home) as client:
        answer = await client.call(
            client.stub.ReplayDelivery, pb.ReplayDeliveryRequest(delivery_id=delivery_id)
        )
        show(delivery_line(answer.delivery))


async def replay_many(
    home: Path,
    endpoint_id: str,
    scope: str,
    since: datetime | None,
    until: datetime | None,
    show: Print,
) -> None:
    """Send an endpoint's deliveries of a time range again, page by page."""
    replayed, token = 0, ""
    async with connected(home) as client:
        while True:
            request = pb.ReplayDeliveriesRequest(
                endpoint_id=endpoint_id,
                scope=pb.ReplayScope.Value(f"REPLAY_SCOPE_{scope.upper()}"),
                from_time=_timestamp(since),
                to_time=_timestamp(until),
                page_token=token,
            )
            answer = await client.call(client.stub.ReplayDeliveries, request)
            replayed, token = replayed + answer.replayed, answer.next_page_token
            if not token:
                break
    show(f"{replayed} will be sent again")


async def tail(home: Path, endpoint_id: str, show: Print) -> None:
    """Show deliveries as they are made and attempted, until interrupted."""
    seen: dict[str, str] = {}
    request = pb.ListDeliveriesRequest(
        endpoint_id=endpoint_id, page_size=TAILED_MAX, from_time=_timestamp(datetime.now(UTC))
    )
    async with connected(home) as client:
        show("following deliveries; Ctrl-C ends it")
        while True:
            try:
                answer = await client.call(client.stub.ListDeliveries, request)
            except RefusedError as error:
                if not error.away:
                    raise
                answer = pb.ListDeliveriesResponse()
            lines = {each.id: delivery_line(each) for each in reversed(answer.deliveries)}
            for delivery_id, line in lines.items():
                if seen.get(delivery_id) != line:
                    show(line)
            seen = lines or seen
            await asyncio.sleep(TAIL_POLL_S)


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time.astimezone(UTC))
    return stamp
