"""The floor of single-event HTTP: a no-op ASGI handler in one process.

It decodes the same JSON with msgspec and answers as much, under the uvicorn settings of the
gateway. `python -m benchmarks.floors.asgi`, an AsgiFloor in.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
import uvicorn
import uvloop

from benchmarks.floors.serving import read_config, serve_until_stdin_ends
from benchmarks.messages import AsgiFloor

Message = MutableMapping[str, Any]
BACKLOG_CONNECTIONS_MAX = 2_048


class Track(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """The body of POST /api/track, as far as the benchmark sends it."""

    metric: str
    amount: int
    customer_id: str


decode = msgspec.json.Decoder(Track).decode


def handler(floor: AsgiFloor) -> Any:
    """An ASGI app that does nothing."""
    headers = [(name.lower().encode(), value.encode()) for name, value in floor.headers]
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    body = {"type": "http.response.body", "body": floor.body.encode()}

    async def answer(
        _scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        message = await receive()
        content: bytes = message["body"]
        while message["more_body"]:
            message = await receive()
            content += message["body"]
        decode(content)
        await send(start)
        await send(body)

    return answer


async def main() -> None:
    """Serve."""
    config = uvicorn.Config(
        handler(read_config(AsgiFloor)),
        http="httptools",
        loop="none",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG_CONNECTIONS_MAX)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listener]))
    await serve_until_stdin_ends(listener.getsockname()[1])
    server.should_exit = True
    server.force_exit = True
    await serving


if __name__ == "__main__":
    uvloop.run(main())
