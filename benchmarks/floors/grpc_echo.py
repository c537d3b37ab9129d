"""A trivial gRPC server: what the gRPC load generator alone can do, no service in the way.

`python -m benchmarks.floors.grpc_echo`, a GrpcEchoFloor in.
"""

from typing import Any

import grpc
import uvloop
from usageflow.ingest.v1.ingest_pb2 import (
    RECEIPT_STATUS_ACCEPTED,
    EventReceipt,
    RecordEventsResponse,
)

from benchmarks.floors.serving import read_config, serve_until_stdin_ends
from benchmarks.messages import GrpcEchoFloor

STOP_S = 1.0


def answer(receipts: int) -> bytes:
    """A RecordEventsResponse as large as a real one, in which all is accepted."""
    receipt = EventReceipt(status=RECEIPT_STATUS_ACCEPTED, event_id="evt_" + "0" * 32)
    return RecordEventsResponse(receipts=[receipt] * receipts).SerializeToString()


async def main() -> None:
    """Serve."""
    response = answer(read_config(GrpcEchoFloor).receipts)

    async def record(_request: bytes, _context: Any) -> bytes:
        return response

    handlers: dict[str, Any] = {"RecordEvents": grpc.unary_unary_rpc_method_handler(record)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("usageflow.ingest.v1.IngestService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await serve_until_stdin_ends(port)
    await server.stop(STOP_S)


if __name__ == "__main__":
    uvloop.run(main())
