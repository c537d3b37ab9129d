"""A relay that loses answers, as networks do: the event is stored, but its sender is not told."""

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import urlsplit

BODY_BYTES_MAX = 256 * 1024
UPSTREAM_S_MAX = 30.0
PASSED_ON = ("Content-Type", "x-usageflow-api-key", "Idempotency-Key")


class LossyRelay:
    """Passes POSTs on; of every idempotency key the first answer is lost with its connection."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.answers_lost = 0
        self.answers_given: list[int] = []
        self._seen: set[str] = set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "LossyRelay":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def first_time(self, key: str) -> bool:
        """Whether nobody has sent this key before."""
        with self._lock:
            new = key not in self._seen
            self._seen.add(key)
            return new

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = min(int(self.headers["Content-Length"]), BODY_BYTES_MAX)
                status, content = relay.pass_on(self, self.rfile.read(length))
                if status == http.HTTPStatus.OK and relay.first_time(
                    self.headers["Idempotency-Key"]
                ):
                    relay.answers_lost += 1
                    self.close_connection = True
                    return
                relay.answers_given.append(status)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing to stderr."""

        return Handler

    def pass_on(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        """What UsageFlow answers to the same request."""
        connection = http.client.HTTPConnection(self.upstream, timeout=UPSTREAM_S_MAX)
        try:
            headers = {name: request.headers[name] for name in PASSED_ON}
            connection.request("POST", request.path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
