"""A product that bills API calls, stored files and background jobs."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
from usage import record_usage

ROUTES = {
    "/api/chat": {"metric": "API_CALL", "metadata": {"endpoint": "/api/chat"}},
    "/api/files": {"metric": "STORAGE_GB", "amount": 2},
    "/api/jobs": {"metric": "JOB_RUN"},
}


class Handler(BaseHTTPRequestHandler):
    """Answers POST; what a route bills stands in ROUTES."""

    def do_POST(self) -> None:
        usage = ROUTES.get(self.path)
        if usage is None:
            self.answer(404, {"message": "Not found"})
            return
        # Stands for your own authentication.
        customer_id = self.headers.get("x-user-id", "user_123")
        try:
            record_usage(customer_id, **usage)
        except requests.RequestException as error:
            self.log_error("usage of %s was not recorded: %s", customer_id, error)
            self.answer(503, {"message": "Please try again"})
            return
        self.answer(200, {"message": "Done"})

    def answer(self, status: int, body: dict[str, str]) -> None:
        """Send a JSON answer."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "3000"))
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"http://127.0.0.1:{port}", flush=True)
        server.serve_forever()
