"""A simulation as JSON lines, as they come.

What fails later than the first part ends the stream without its last line, the total: it never
looks whole.
"""

from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import msgspec
from usageflow.invoicer.v1 import simulation_pb2 as pb

from gateway.calls import Calls
from gateway.errors import unavailable
from gateway.shapes.simulations import lines_of
from services.kit.errors import from_rpc_error

# 100,000 customers and 12 months take some minutes.
SIMULATION_S_MAX: Final = 1_800.0


async def simulate(calls: Calls, request: pb.SimulatePlanRequest) -> AsyncIterator[bytes]:
    """The lines; the first part is read before this returns. DomainError."""
    call = calls.stream(calls.simulations.SimulatePlan, request, SIMULATION_S_MAX)
    try:
        first = await _next(call)
    except BaseException:
        call.cancel()
        raise
    if first is None:
        raise unavailable("Stopping")
    return _lines(call, first)


async def _next(call: Any) -> pb.SimulatePlanResponse | None:
    try:
        part = await call.read()
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    return None if part is grpc.aio.EOF else part


async def _lines(call: Any, first: pb.SimulatePlanResponse) -> AsyncIterator[bytes]:
    part: pb.SimulatePlanResponse | None = first
    try:
        while part is not None:
            yield b"".join(msgspec.json.encode(line) + b"\n" for line in lines_of(part))
            part = await _next(call)
    finally:
        # Whoever has gone needs no more of it.
        call.cancel()
