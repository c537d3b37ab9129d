"""A little HTTP server that keeps the webhooks it gets, as a customer's application would."""

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from standardwebhooks import Webhook

BODY_BYTES_MAX = 1024 * 1024
RECEIVED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class ReceivedWebhook:
    """One POST as it came: headers (names in lower case) and body."""

    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> dict[str, Any]:
        """The body, after the `standardwebhooks` package has verified the signature.

        WebhookVerificationError when it does not match.
        """
        return dict(Webhook(secret).verify(self.body, self.headers))


class WebhookReceiver:
    """Listens on a free port of 127.0.0.1 while its `with` block runs."""

    def __init__(self) -> None:
        self._received: list[ReceivedWebhook] = []
        received = self._received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                accepted = length <= BODY_BYTES_MAX and len(received) < RECEIVED_MAX
                if accepted:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    received.append(ReceivedWebhook(headers, self.rfile.read(length)))
                self.send_response(204 if accepted else 413)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """The demo's own lines tell what came."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self._server.server_port}/webhooks"

    def received(self) -> list[ReceivedWebhook]:
        """What has come so far."""
        return list(self._received)

    def __enter__(self) -> "WebhookReceiver":
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
