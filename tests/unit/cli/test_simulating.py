"""`usageflow simulate`: what it sends, what it shows, and when it fails."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.importing.target import Target
from cli.simulating.run import Largest, SimulationError, read_plan, run

TOTAL = {
    "type": "total",
    "currency": "USD",
    "customers": 1_200,
    "customersMore": 1,
    "customersLess": 2,
    "customersOtherCurrency": 3,
    "oldAmount": "10.00",
    "newAmount": "12.00",
    "difference": "2.00",
    "asOf": None,
}


def customer(name: str, difference: str | None) -> dict[str, Any]:
    return {
        "type": "customer",
        "customerId": name,
        "oldAmount": "1.00",
        "newAmount": "2.00",
        "difference": difference,
    }


def test_the_largest_changes_are_shown_whatever_their_sign() -> None:
    largest = Largest(shown_max=2)
    for name, difference in (("a", "1"), ("b", "-9.5"), ("c", "10"), ("d", None), ("e", "-9.5")):
        largest.add(customer(name, difference))
    assert [row["customerId"] for row in largest.rows()] == ["c", "b"]


def test_numbers_of_a_plan_stay_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"basePrice": 0.1000000000000000055}')
    assert read_plan(path) == {"basePrice": "0.1000000000000000055"}
    path.write_text("{")
    with pytest.raises(SimulationError, match=r"plan\.json"):
        read_plan(path)


async def ask(answer: bytes, status: int = 200) -> tuple[str, dict[str, Any]]:
    """What is printed, and the body that was sent to a server that answers so."""
    sent: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-l"))
        sent.append(await reader.readexactly(int(length.partition(b":")[2])))
        writer.write(b"HTTP/1.1 %d X\r\nconnection: close\r\n\r\n" % status + answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    out = io.StringIO()
    target = Target(f"http://127.0.0.1:{port}", "key", is_here=True, compress=False)
    try:
        errors = Console(file=io.StringIO())
        console = Console(file=out, width=100)
        await run(target, {"from": "2026-01"}, console, errors, json_lines=False)
    finally:
        server.close()
    return out.getvalue(), json.loads(sent[0])


def lines(*told: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in told)


async def test_customers_and_the_total_are_shown() -> None:
    progress = {"type": "progress", "customersDone": 1, "customersTotal": 1}
    shown, sent = await ask(lines(progress, customer("[red]a", "1.00"), TOTAL))
    assert sent == {"from": "2026-01"}
    assert "[red]a" in shown
    assert "1,200 customers, USD" in shown
    assert "1 would pay more, 2 less; 3 pay in another currency" in shown


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (lines(customer("a", "1")), 200, "cut off before its total"),
        (b'{"error": "planId: no such"}', 404, "planId: no such"),
        (b"<html>", 502, "HTTP 502"),
    ],
)
async def test_an_answer_that_is_none(answer: bytes, status: int, message: str) -> None:
    with pytest.raises(SimulationError, match=message):
        await ask(answer, status)
