"""An invoice as PDF, typeset by a process of its own."""

import asyncio
import json
import subprocess
import sys

import structlog

from services.invoicer.issuers import Issuer
from services.invoicer.rendering.view import View
from services.kit.errors import UnavailableError

log = structlog.get_logger()

TYPESET = (sys.executable, "-m", "services.invoicer.rendering.typeset")
TIMEOUT_S = 20.0
RETRY_AFTER_S = 2.0
# Each takes some 200 MB and a processor for about a second; others wait their turn.
RUNNING_MAX = 1
WAITING_MAX = 10


class PdfRenderer:
    """Typesets a few invoices at a time."""

    def __init__(self) -> None:
        self._running = asyncio.Semaphore(RUNNING_MAX)
        self._waiting = 0

    async def render(self, view: View) -> bytes:
        """The PDF. UnavailableError: too many wait, or it took too long."""
        pdf = await self._make(view)
        if pdf is None:
            raise UnavailableError("The PDF could not be made; it was logged")
        return pdf

    async def can_show(self, logo: bytes) -> bool:
        """Whether a logo's file is one that can be typeset. UnavailableError as above."""
        view = View("", "", Issuer(logo=logo), (), (), (), (), "", "")
        return await self._make(view) is not None

    async def _make(self, view: View) -> bytes | None:
        if self._waiting >= WAITING_MAX:
            raise UnavailableError("Too many PDFs are being made", retry_after_s=RETRY_AFTER_S)
        self._waiting += 1
        try:
            async with self._running:
                return await _typeset(json.dumps(data_of(view)).encode())
        finally:
            self._waiting -= 1


async def _typeset(data: bytes) -> bytes | None:
    """The PDF; None: the data can't be typeset, which is logged."""
    # In a thread: a loop of uvloop's sometimes takes a pipe to a child for closed before it has
    # written to it.
    try:
        done = await asyncio.to_thread(
            subprocess.run, TYPESET, input=data, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        message = "The PDF took too long to make"
        raise UnavailableError(message, retry_after_s=RETRY_AFTER_S) from None
    if done.returncode != 0:
        log.warning("pdf_failed", problem=done.stderr.decode(errors="replace")[-2_000:])
        return None
    return done.stdout


def data_of(view: View) -> dict[str, object]:
    """What the template takes."""
    issuer = view.issuer
    texts = (issuer.name, *issuer.address.split("\n"), issuer.tax_id, issuer.email)
    return {
        "title": view.title,
        "status": view.status,
        "issuer": [text for text in texts if text],
        "logo": list(issuer.logo) if issuer.logo else None,
        "footer": issuer.footer,
        "recipient": list(view.recipient),
        "facts": [list(fact) for fact in view.facts],
        "currency": view.currency,
        "lines": [
            {
                "description": line.description,
                "period": line.period,
                "quantity": line.quantity,
                "unit_price": line.unit_price,
                "amount": line.amount,
            }
            for line in view.lines
        ],
        "sums": [list(each) for each in view.sums],
        "hash": view.hash,
    }
