"""The floor of delivering webhooks: a bare aiohttp client that posts one signed body in a loop.

No queue, no database, no checks: so many loops in one process that post and read the answer.
`python -m benchmarks.floors.webhook_post`, a WebhookFloor in, a WebhookFloorResult out.
"""

import asyncio
import sys
import time

import aiohttp
import msgspec
import uvloop

from benchmarks.errors import BenchmarkError
from benchmarks.messages import WebhookFloor, WebhookFloorResult

# What the client writes itself.
OWN_HEADERS = ("host", "content-length", "accept-encoding", "accept")


async def post(session: aiohttp.ClientSession, floor: WebhookFloor, ends_s: float) -> int:
    """Post until the time is over; how often."""
    headers = [
        (name, text) for name, text in floor.sample.headers if name.lower() not in OWN_HEADERS
    ]
    body = floor.sample.body.encode()
    count = 0
    while time.perf_counter() < ends_s:
        async with session.post(floor.url, data=body, headers=headers) as response:
            await response.read()
            if response.status != 200:
                raise BenchmarkError(f"the receiver answered {response.status}")
        count += 1
    return count


async def main() -> None:
    """Measure."""
    floor = msgspec.json.decode(sys.stdin.buffer.read(), type=WebhookFloor)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
        begun_s = time.perf_counter()
        ends_s = begun_s + floor.measure_s
        counts = await asyncio.gather(
            *(post(session, floor, ends_s) for _ in range(floor.in_flight))
        )
        took_s = time.perf_counter() - begun_s
    sys.stdout.buffer.write(msgspec.json.encode(WebhookFloorResult(sum(counts) / took_s)))


if __name__ == "__main__":
    uvloop.run(main())
