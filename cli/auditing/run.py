"""Runs an audit of one organization, in the modes that are asked for."""

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import typer
from usageflow.common.v1 import common_pb2

from cli.auditing.audit import Outcome, audit
from cli.auditing.invoices.audit import InvoiceOutcome, audit_invoices
from cli.auditing.invoices.parts import connected_billing
from cli.auditing.parts import Where, connected, find_parts
from cli.errors import StackError

MODES = {"live": common_pb2.MODE_LIVE, "test": common_pb2.MODE_TEST}
Result = TypeVar("Result")


async def run(
    home: Path,
    organization_id: str,
    mode: str,
    start: datetime,
    end: datetime,
    metrics: Collection[str],
) -> dict[str, Outcome]:
    """The outcome of each mode; `mode` "both": of both. StackError."""

    async def one(where: Where, whose: str, number: common_pb2.Mode.ValueType) -> Outcome:
        async with connected(where, whose, number) as parts:
            return await audit(parts, start, end, metrics, _progress)

    return await _each_mode(home, organization_id, mode, one)


async def run_invoices(
    home: Path, organization_id: str, mode: str, start: datetime, end: datetime
) -> dict[str, InvoiceOutcome]:
    """The outcome of each mode; `mode` "both": of both. StackError."""

    async def one(where: Where, whose: str, number: common_pb2.Mode.ValueType) -> InvoiceOutcome:
        async with connected_billing(where, whose, number) as parts:
            return await audit_invoices(parts, start, end, _progress)

    return await _each_mode(home, organization_id, mode, one)


async def _each_mode(
    home: Path,
    organization_id: str,
    mode: str,
    one: Callable[[Where, str, common_pb2.Mode.ValueType], Awaitable[Result]],
) -> dict[str, Result]:
    where = find_parts(home)
    organization_id = organization_id or where.organization_id
    if not organization_id:
        raise StackError("which organization? give its --org")
    return {
        name: await one(where, organization_id, number)
        for name, number in MODES.items()
        if mode in (name, "both")
    }


def _progress(done: str) -> None:
    typer.echo(f"  {done}", err=True)
