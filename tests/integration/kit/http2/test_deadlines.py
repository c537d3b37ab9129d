"""Nobody holds a place for longer than a call takes, with or without a deadline."""

import asyncio

import pytest

from services.kit.http2 import call
from services.kit.http2.frames import (
    DATA,
    END_HEADERS,
    HEADERS,
    PREFACE,
    RST_STREAM,
    ErrorCode,
    frame,
    number_frame,
    settings_frame,
)
from tests.integration.kit.http2.serving import SERVICE, Peer, Served, block, message, peer
from tests.waiting import until

WAIT = f"/{SERVICE}/Wait"
DEADLINE_EXCEEDED = "4"


@pytest.mark.parametrize("sent", [b"", message(b"hello")[:3], message(b"hello")[:7]])
async def test_a_deadline_holds_while_the_request_comes(client: Peer, sent: bytes) -> None:
    headers = block(grpc_timeout="100m")
    await client.send(frame(HEADERS, END_HEADERS, 1, headers), frame(DATA, 0, 1, sent))
    assert (await client.status(1))["grpc-status"] == DEADLINE_EXCEEDED
    assert await client.reset(1) is ErrorCode.NO_ERROR
    await client.echo(3)


@pytest.mark.parametrize("given", [None, "99999999H"])
async def test_a_request_must_come_within_a_minute(
    served: Served, client: Peer, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.setattr(call, "REQUEST_S_MAX", 0.1)
    headers = block(grpc_timeout=given)
    await client.send(frame(HEADERS, END_HEADERS, 1, headers), frame(DATA, 0, 1, b"half"))
    assert (await client.status(1))["grpc-status"] == DEADLINE_EXCEEDED
    # A handler has the time that its caller gives it.
    await client.call(3, headers=block(path=WAIT, grpc_timeout=given))
    await served.handlers.running.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(served.handlers.cancelled.wait(), 0.3)
    served.handlers.go_on.set()
    assert (await client.status(3))["grpc-status"] == "0"


async def test_a_deadline_after_that_minute_is_kept(
    served: Served, client: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "REQUEST_S_MAX", 0.05)
    await client.call(1, headers=block(path=WAIT, grpc_timeout="200m"))
    await served.handlers.running.wait()
    assert (await client.status(1))["grpc-status"] == DEADLINE_EXCEEDED
    await asyncio.wait_for(served.handlers.cancelled.wait(), 5)


@pytest.mark.parametrize("given", [None, "99999999H"])
async def test_an_answer_must_be_taken_within_a_minute(
    served: Served, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    monkeypatch.setattr(call, "ANSWER_S_MAX", 0.1)
    async with peer(served, PREFACE + settings_frame({4: 0})) as client:
        await client.call(1, headers=block(grpc_timeout=given))
        assert (await client.status(1))["grpc-status"] == DEADLINE_EXCEEDED
        await until("its end", lambda: not served.server.load.calls)
    assert served.server.load.held_bytes == 0


@pytest.mark.parametrize("lost", [False, True])
async def test_requests_that_are_given_up_are_not_taken_for_all(
    served: Served, client: Peer, lost: bool
) -> None:
    path = f"/{SERVICE}/Measure"
    await client.send(
        frame(HEADERS, END_HEADERS, 1, block(path=path)), frame(DATA, 0, 1, message(b"one"))
    )
    await served.handlers.running.wait()
    if lost:
        client.transport.abort()
    else:
        await client.send(
            frame(DATA, 0, 1, message(b"two")), number_frame(RST_STREAM, 1, ErrorCode.CANCEL)
        )
    await until("its end", lambda: not served.server.load.calls)
    assert served.handlers.measured == []


async def test_a_handler_that_does_not_end_gets_no_end_of_requests(
    served: Served, client: Peer
) -> None:
    path = f"/{SERVICE}/Stubborn"
    await client.send(
        frame(HEADERS, END_HEADERS, 1, block(path=path)), frame(DATA, 0, 1, message(b"one"))
    )
    await served.handlers.running.wait()
    await client.send(number_frame(RST_STREAM, 1, ErrorCode.CANCEL))
    await asyncio.wait_for(served.handlers.cancelled.wait(), 5)
    await until("its end", lambda: not served.server.load.calls)
    assert served.handlers.measured == []
