"""Asks for a simulation and shows what comes."""

import heapq
import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from cli.importing.target import Target

PATH: Final = "/api/plans/simulate"
CONNECT_TIMEOUT_S: Final = 10.0
# Between two parts of the answer, each of which is some hundred customers.
READ_TIMEOUT_S: Final = 120.0
SHOWN_MAX: Final = 20
ERROR_BYTES_MAX: Final = 16_384

Line = dict[str, Any]


class SimulationError(Exception):
    """Why there is no answer, in a sentence for people."""


def read_plan(path: Path) -> Any:
    """The JSON in the file; numbers stay as they are written."""
    try:
        return json.loads(path.read_text(), parse_float=str)
    except (OSError, ValueError) as error:
        raise SimulationError(f"{path}: {error}") from error


class Largest:
    """The customers whose amounts change most."""

    def __init__(self, shown_max: int = SHOWN_MAX) -> None:
        self._shown_max = shown_max
        self._found: list[tuple[Decimal, int, Line]] = []
        self._count = 0

    def add(self, customer: Line) -> None:
        """One more; those without a difference are not shown."""
        if customer["difference"] is None:
            return
        self._count += 1
        # The first of two that are equal stays.
        entry = (abs(Decimal(customer["difference"])), -self._count, customer)
        if len(self._found) < self._shown_max:
            heapq.heappush(self._found, entry)
        else:
            heapq.heappushpop(self._found, entry)

    def rows(self) -> list[Line]:
        """The largest change first."""
        return [customer for _, _, customer in sorted(self._found, reverse=True)]


async def run(
    target: Target, asked: Line, console: Console, errors: Console, *, json_lines: bool
) -> None:
    """Ask, follow the answer, show it. SimulationError: refused, away, or cut off."""
    timeout = httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    headers = {"x-usageflow-api-key": target.api_key}
    progress = Progress(
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,} of {task.total:,} customers"),
        console=errors,
        transient=True,
        disable=not errors.is_terminal,
    )
    task = progress.add_task("", total=0)
    largest, total = Largest(), None
    try:
        async with (
            httpx.AsyncClient(base_url=target.url, timeout=timeout) as client,
            client.stream("POST", PATH, json=asked, headers=headers) as response,
        ):
            await _check(response)
            with progress:
                async for text in response.aiter_lines():
                    if json_lines:
                        console.print(text, markup=False, highlight=False, soft_wrap=True)
                    line = json.loads(text)
                    if line["type"] == "customer":
                        largest.add(line)
                    elif line["type"] == "progress":
                        done, whole = line["customersDone"], line["customersTotal"]
                        progress.update(task, completed=done, total=whole)
                    elif line["type"] == "total":
                        total = line
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise SimulationError(f"{target.url}: {str(error) or type(error).__name__}") from error
    if total is None:
        raise SimulationError("the answer was cut off before its total: try again")
    if not json_lines:
        _show(console, largest, total)


async def _check(response: httpx.Response) -> None:
    if response.status_code == httpx.codes.OK:
        return
    body = b""
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > ERROR_BYTES_MAX:
            break
    try:
        message = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {response.status_code}"
    raise SimulationError(str(message))


def _show(console: Console, largest: Largest, total: Line) -> None:
    table = Table("customer", "now", "with the plan", "difference", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in largest.rows():
        cells = (row["customerId"], row["oldAmount"], row["newAmount"], row["difference"])
        table.add_row(*(escape(str(cell)) for cell in cells))
    table.add_section()
    name = f"{total['customers']:,} customers, {total['currency']}"
    table.add_row(name, total["oldAmount"], total["newAmount"], total["difference"])
    console.print(table)
    console.print(
        f"{total['customersMore']:,} would pay more, {total['customersLess']:,} less"
        + _others(total["customersOtherCurrency"])
    )


def _others(count: int) -> str:
    return f"; {count:,} pay in another currency and are in no sum" if count else ""
