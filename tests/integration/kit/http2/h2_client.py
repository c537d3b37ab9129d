"""A client made of the h2 library, which refuses whatever a server must not do."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import strategies as st

from tests.integration.kit.http2.serving import REQUEST, WAIT_S, message

# What is done, and a number that says how.
Step: TypeAlias = tuple[str, int]
READ_BYTES = 1 << 16


def steps() -> st.SearchStrategy[list[Step]]:
    """Anything a client may do, in any order."""
    return st.lists(
        st.one_of(
            st.tuples(st.just("call"), st.sampled_from([0, 1, 100, 16_379, 20_000, 200_000])),
            st.tuples(st.just("begin"), st.sampled_from([1, 70_000])),
            st.tuples(st.just("window"), st.sampled_from([0, 1, 100, 65_535, 1 << 20])),
            st.tuples(st.just("reset"), st.integers(0, 5)),
            st.tuples(st.just("ping"), st.just(0)),
            st.tuples(st.just("read"), st.integers(0, 3)),
            st.tuples(st.just("give"), st.integers(1, 70_000)),
        ),
        max_size=25,
    )


@dataclass
class Client:
    """Keeps what it called, and what was answered."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: Any
    expected: dict[int, bytes] = field(default_factory=dict)
    answers: dict[int, tuple[bytes, str]] = field(default_factory=dict)
    _content: dict[int, bytes] = field(default_factory=lambda: defaultdict(bytes))
    # Requests, and how much of them is sent.
    _unsent: dict[int, bytes] = field(default_factory=dict)
    _settled: bool = False

    @classmethod
    async def connect(cls, port: int) -> "Client":
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        http.initiate_connection()
        client = cls(reader, writer, http)
        await client._flush()
        async with asyncio.timeout(WAIT_S):
            # The library takes any acknowledgement for that of the first change.
            while not client._settled:
                await client._read(WAIT_S)
        return client

    async def do(self, step: Step) -> None:
        """A step, as far as HTTP/2 allows it now."""
        what, number = step
        if what in ("call", "begin"):
            stream = self.http.get_next_available_stream_id()
            self.http.send_headers(stream, REQUEST)
            content = b"c" * number
            self.expected[stream] = content
            self._unsent[stream] = message(content)
            if what == "call":
                self._send_requests()
        elif what == "window":
            self.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: number})
        elif what == "reset":
            await self._reset(number)
        elif what == "ping":
            self.http.ping(b"12345678")
        elif what == "give":
            self.http.increment_flow_control_window(number)
        else:
            await self._read(0.001 * number)
        await self._flush()

    async def finish(self) -> None:
        """Until all that was called is answered."""
        self.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
        self.http.increment_flow_control_window(1 << 24)
        async with asyncio.timeout(WAIT_S):
            while self.answers.keys() < self.expected.keys():
                self._send_requests()
                await self._flush()
                await self._read(0.05)

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()

    async def _reset(self, number: int) -> None:
        running = [stream for stream in self.expected if stream not in self.answers]
        if number < len(running):
            stream = running[number]
            self.http.reset_stream(stream, 8)
            del self.expected[stream]
            self._unsent.pop(stream, None)

    def _send_requests(self) -> None:
        for stream, content in list(self._unsent.items()):
            while content and (room := self.http.local_flow_control_window(stream)) > 0:
                size = min(room, self.http.max_outbound_frame_size)
                part, content = content[:size], content[size:]
                self.http.send_data(stream, part, end_stream=not content)
            self._unsent[stream] = content
            if not content:
                del self._unsent[stream]

    async def _flush(self) -> None:
        self.writer.write(self.http.data_to_send())
        await self.writer.drain()

    async def _read(self, wait_s: float) -> None:
        try:
            data = await asyncio.wait_for(self.reader.read(READ_BYTES), wait_s)
        except TimeoutError:
            return
        assert data, "the server has closed the connection"
        for event in self.http.receive_data(data):
            stream = getattr(event, "stream_id", 0)
            if isinstance(event, h2.events.DataReceived):
                self._content[stream] += event.data
            elif isinstance(event, h2.events.TrailersReceived):
                status = {str(name): str(value) for name, value in event.headers}["grpc-status"]
                self.answers[stream] = (self._content[stream], status)
            elif isinstance(event, h2.events.StreamReset):
                assert stream not in self.expected, f"{stream} was reset"
            elif isinstance(event, h2.events.SettingsAcknowledged):
                self._settled = True
            assert not isinstance(event, h2.events.ConnectionTerminated), event
