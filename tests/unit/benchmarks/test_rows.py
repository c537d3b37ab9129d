import pytest
from msgspec.structs import replace

from benchmarks.bench import Bench
from benchmarks.messages import HttpLoad
from benchmarks.plan import QUICK
from benchmarks.rows import LONG, ROWS
from benchmarks.rows.growth import short
from benchmarks.rows.replicas import shared
from benchmarks.stack import MeasuredStack
from cli.connection import Connection

CONNECTION = Connection(
    http="http://127.0.0.1:8080",
    grpc={"ingest": "127.0.0.1:2001", "aggregator": "127.0.0.1:2002"},
    nats="nats://127.0.0.1:2003",
    databases={},
    api_key="uf_test_key",
    pids={"postgres": 1, "ingest": 2, "ingest-2": 3, "gateway": 4, "gateway-2": 5},
    supervisor_pid=6,
    http_replicas=["http://127.0.0.1:8081"],
)
PORTS = {"ingest": 2001, "ingest-2": 2005, "gateway-2": 8081}


def test_rows_that_a_quick_run_leaves_out_are_rows() -> None:
    assert ROWS.keys() >= LONG


@pytest.mark.parametrize(
    ("count", "text"), [(20_000_000, "20m"), (200_000, "200k"), (1_500_000, "1500k"), (7, "7")]
)
def test_a_count_is_named_shortly(count: int, text: str) -> None:
    assert short(count) == text


def test_a_load_is_shared_by_all_gateways_and_all_ingests() -> None:
    stack = MeasuredStack(CONNECTION, PORTS)
    bench = Bench(stack, QUICK, print)
    whole = bench.load("http_single_256")
    assert isinstance(whole, HttpLoad)
    assert shared(bench, "http_single_256") == [
        replace(whole, port=port, connections=128) for port in (8080, 8081)
    ]
    grpc = shared(bench, "grpc_batch_500")
    addresses = {getattr(load, "address", None) for load in grpc}
    assert addresses == {"ipv4:127.0.0.1:2001,127.0.0.1:2005"}
    assert [getattr(load, "in_flight", None) for load in grpc] == [2, 2]
    stack.close()
