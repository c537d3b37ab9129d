"""A server that speaks Stripe's HTTP, as far as payments need it, and its troubles.

Like Stripe it keeps what it answered under each idempotency key, errors of its own included.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from aiohttp import web


class Does(Enum):
    """What becomes of a payment. Without more ado it succeeds."""

    SUCCEED = auto()
    DECLINE = auto()
    PROCESS = auto()
    # It succeeds, and the answer never comes.
    SUCCEED_AND_HANG = auto()
    # It succeeds, and the answer is a 500.
    SUCCEED_AND_BREAK = auto()
    BREAK = auto()
    LIMIT = auto()


@dataclass
class StandInStripe:
    """An account. `script` says what becomes of the next payments."""

    api_key: str
    url: str = ""
    script: deque[Does] = field(default_factory=deque)
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    # Since when payments were looked through, in seconds since 1970.
    looked_since: list[int] = field(default_factory=list)
    charged: asyncio.Event = field(default_factory=asyncio.Event)
    # Set when the server ends: what hangs then goes.
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def charges(self) -> list[dict[str, Any]]:
        """What was paid."""
        return [each for each in self.intents.values() if each["status"] == "succeeded"]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/payment_intents"""
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append((request.headers["Idempotency-Key"], form))
        if request.headers["Authorization"] != f"Bearer {self.api_key}":
            return _error(401, "invalid_request_error", "", "Invalid API Key provided")
        does = self.script.popleft() if self.script else Does.SUCCEED
        if does is Does.LIMIT:  # is told before keys are looked at, and not kept
            return _error(429, "invalid_request_error", "rate_limit", "Too many requests")
        key = request.headers["Idempotency-Key"]
        if key not in self.answers:
            self.answers[key] = self._create(form, does)
            self.charged.set()
        if does is Does.SUCCEED_AND_HANG:
            await self.ended.wait()
        status, body = self.answers[key]
        return web.json_response(body, status=status)

    def _create(self, form: dict[str, str], does: Does) -> tuple[int, dict[str, Any]]:
        broken = 500, _body("api_error", "", "Something went wrong on our side")
        if does is Does.BREAK:
            return broken
        intent_id = f"pi_{next(self._numbers)}"
        intent = self.intents[intent_id] = {
            "id": intent_id,
            "object": "payment_intent",
            "amount": int(form["amount"]),
            "currency": form["currency"],
            "customer": form["customer"],
            "status": "succeeded",
            "metadata": {"usageflow_attempt": form["metadata[usageflow_attempt]"]},
            "last_payment_error": None,
        }
        if does is Does.PROCESS:
            intent["status"] = "processing"
        if does is Does.DECLINE:
            message = "Your card has insufficient funds."
            body = _body("card_error", "card_declined", message)
            body["error"] |= {"decline_code": "insufficient_funds", "payment_intent": intent}
            intent["status"] = "requires_payment_method"
            intent["last_payment_error"] = {
                "code": "card_declined",
                "decline_code": "insufficient_funds",
                "message": message,
            }
            return 402, body
        return broken if does is Does.SUCCEED_AND_BREAK else (200, intent)

    async def find(self, request: web.Request) -> web.Response:
        """GET /v1/payment_intents"""
        customer = request.query["customer"]
        self.looked_since.append(int(request.query["created[gte]"]))
        found = [each for each in self.intents.values() if each["customer"] == customer]
        body = {"object": "list", "data": found, "has_more": False, "url": "/v1/payment_intents"}
        return web.json_response(body)

    async def retrieve(self, request: web.Request) -> web.Response:
        """GET /v1/payment_intents/{id}"""
        return web.json_response(self.intents[request.match_info["id"]])


def _body(kind: str, code: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "code": code or None, "message": message}}


def _error(status: int, kind: str, code: str, message: str) -> web.Response:
    return web.json_response(_body(kind, code, message), status=status)


@asynccontextmanager
async def stand_in_stripe(api_key: str) -> AsyncIterator[StandInStripe]:
    """The server, on a port of its own."""
    account = StandInStripe(api_key)
    app = web.Application()
    app.router.add_post("/v1/payment_intents", account.create)
    app.router.add_get("/v1/payment_intents", account.find)
    app.router.add_get("/v1/payment_intents/{id}", account.retrieve)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    account.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield account
    finally:
        account.ended.set()
        await runner.cleanup()
