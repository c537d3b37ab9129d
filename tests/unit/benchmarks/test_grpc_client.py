"""The generator's own gRPC client against a real server of gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.generators.calls import Calls
from benchmarks.generators.grpc_client import (
    FRAME_BYTES_MAX,
    WINDOW_BYTES,
    Connection,
    header_block,
    literal,
    refusal_of,
)
from benchmarks.messages import CallLoad

METHOD = "/test.Service/Call"
WAIT_S = 10


@asynccontextmanager
async def serving(answer: Callable[[bytes, Any], Any]) -> AsyncIterator[int]:
    """A gRPC server of METHOD; its port."""
    handlers: dict[str, Any] = {"Call": grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Service", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def refusals(port: int, method: str, requests: list[bytes]) -> list[str]:
    """What is answered to calls that are made one after the other."""
    answers: asyncio.Queue[str | Exception] = asyncio.Queue()
    metadata = (("grpc-timeout", "5S"), ("x-key", "secret"))
    _, connection = await asyncio.get_running_loop().create_connection(
        lambda: Connection(
            method,
            metadata,
            lambda _begun_s, refusal: answers.put_nowait(refusal),
            answers.put_nowait,
        ),
        "127.0.0.1",
        port,
    )
    told = []
    async with asyncio.timeout(WAIT_S):
        for request in requests:
            connection.send(request, 0.0)
            answer = await answers.get()
            if isinstance(answer, Exception):
                raise answer
            told.append(answer)
    connection.close()
    return told


async def test_a_call_arrives_with_its_metadata_and_deadline() -> None:
    seen = []

    async def answer(request: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        seen.append((request, metadata["x-key"], context.time_remaining() > 0))
        return b"pong"

    async with serving(answer) as port:
        assert await refusals(port, METHOD, [b"ping", b"again"]) == ["", ""]
    assert seen == [(b"ping", "secret", True), (b"again", "secret", True)]


async def test_a_refusal_is_told_by_its_name_and_sentence() -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such thing")
        raise AssertionError

    async with serving(answer) as port:
        assert await refusals(port, METHOD, [b""]) == ["NOT_FOUND: there is no such thing"]
        unknown = await refusals(port, "/test.Service/Other", [b""])
        assert unknown[0].startswith("UNIMPLEMENTED: ")


async def test_more_is_sent_and_received_than_fits_into_the_first_windows() -> None:
    sizes = []

    async def answer(request: bytes, context: Any) -> bytes:
        sizes.append(len(request))
        return bytes(2 * WINDOW_BYTES)

    requests = [bytes(FRAME_BYTES_MAX // 2)] * 30
    async with serving(answer) as port:
        assert await refusals(port, METHOD, requests) == [""] * 30
    assert sum(sizes) > 3 * WINDOW_BYTES


async def test_a_server_that_goes_away_is_an_error() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(BenchmarkError, match="closed the connection"):
        await refusals(port, METHOD, [b""])
    server.close()
    await server.wait_closed()


async def test_a_load_keeps_so_many_calls_in_flight() -> None:
    running, most, answered = 0, 0, 0

    async def answer(request: bytes, context: Any) -> bytes:
        nonlocal running, most, answered
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        answered += 1
        return request

    async with serving(answer) as port:
        load = CallLoad(
            address=f"127.0.0.1:{port}",
            method=METHOD,
            api_key="uf_test_key",
            requests=[b"one", b"two"],
            in_flight=3,
            warm_up_s=0.0,
            measure_s=0.2,
        )
        result = await Calls(load).run()
    assert 1 < most <= 3
    assert result.requests == answered
    assert not result.refused
    assert result.accepted == answered


def test_literals_are_found_by_their_names() -> None:
    block = header_block((("grpc-status", "5"), ("grpc-message", "no")))
    assert literal(block, "grpc-message") == "no"
    assert literal(block, "date") == ""
    assert refusal_of(block) == "NOT_FOUND: no"
    assert refusal_of(header_block((("grpc-status", "0"),))) == ""


def test_what_is_too_large_is_not_sent() -> None:
    with pytest.raises(BenchmarkError, match="too long"):
        header_block((("x", "y" * 127),))
    connection = Connection(METHOD, (), lambda *_: None, lambda _: None)
    with pytest.raises(BenchmarkError, match="no room"):
        connection.send(bytes(FRAME_BYTES_MAX), 0.0)
