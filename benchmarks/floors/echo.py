"""A trivial HTTP responder: what the HTTP load generator alone can do, no server in the way.

`python -m benchmarks.floors.echo`, an EchoFloor in.
"""

import asyncio
from typing import cast

import uvloop

from benchmarks.floors.serving import read_config, serve_until_stdin_ends
from benchmarks.messages import EchoFloor


class Echo(asyncio.Protocol):
    """Answers whatever arrives; requests are small, so one arrives in one piece."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio calls this."""
        # uvloop's transports are asyncio.Transports in all but their class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, _data: bytes) -> None:
        """asyncio calls this."""
        self._transport.write(self._answer)


async def main() -> None:
    """Serve."""
    answer = read_config(EchoFloor).answer.encode()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Echo(answer), "127.0.0.1", 0)
    async with server:
        await serve_until_stdin_ends(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    uvloop.run(main())
