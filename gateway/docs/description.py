"""The OpenAPI document and its page, made when somebody first asks a process for one of them.

They tell of the routes alone, so those of a process' first app are all others'. Making them takes
0.4 s of processor time, as much as half of the gateway's whole start; few processes are ever asked.
"""

import asyncio
from threading import Lock
from typing import Final, NamedTuple

import msgspec
from litestar import Litestar

from gateway import openapi
from gateway.docs.page import page


class Description(NamedTuple):
    """The OpenAPI 3.1 document as JSON, and what it says as HTML."""

    document: bytes
    page: str


_making: Final = Lock()
_made: list[Description] = []


async def description_of(app: Litestar) -> Description:
    """What is told of the app's routes; the first time made in a thread, beside other requests."""
    return _made[0] if _made else await asyncio.to_thread(_make_once, app)


def _make_once(app: Litestar) -> Description:
    with _making:
        if not _made:
            document = openapi.document(app)
            _made.append(Description(document, page(msgspec.json.decode(document))))
    return _made[0]
