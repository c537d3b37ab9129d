"""Ctrl-C ends an import at once, with what was answered so far; and so does a pipe that goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli.stack import ROOT

WAIT_S = 60


class Gateway(BaseHTTPRequestHandler):
    """Accepts every event; tells when it has answered."""

    protocol_version = "HTTP/1.1"
    answered = threading.Event()

    def do_POST(self) -> None:
        """Answer a batch."""
        body = self.rfile.read(int(self.headers["content-length"]))
        count = body.count(b"\n") + 1
        results = [{"index": index, "status": "ACCEPTED"} for index in range(count)]
        counts = {"accepted": count, "duplicates": 0, "conflicts": 0, "rejected": 0}
        answer = json.dumps({**counts, "results": results}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.answered.set()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    """Where a stand-in for the gateway answers."""
    Gateway.answered.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def importing(url: str) -> Iterator["subprocess.Popen[str]"]:
    """An import of a pipe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "import", "-", "--url", url, "--batch-lines", "10"],
        env={**os.environ, "USAGEFLOW_API_KEY": "uf_test_key"},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Who runs the tests in the background has it ignored, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    yield process
    process.kill()
    process.wait(WAIT_S)


def test_ctrl_c_ends_an_import_whose_pipe_goes_on(importing: "subprocess.Popen[str]") -> None:
    assert importing.stdin is not None
    importing.stdin.write('{"metric": "A", "amount": 1}\n' * 15)
    importing.stdin.flush()
    assert Gateway.answered.wait(WAIT_S)
    importing.send_signal(signal.SIGINT)
    assert importing.wait(WAIT_S) == 130
    assert importing.stdout is not None
    assert importing.stderr is not None
    told = importing.stdout.read()
    assert told.endswith(" unfinished=1\n")
    assert told.startswith(("lines=10 accepted=10", "lines=0 accepted=0"))
    assert "Run the same command again" in importing.stderr.read()


def test_an_answer_comes_while_the_pipe_is_silent(importing: "subprocess.Popen[str]") -> None:
    """The file is read by another thread."""
    assert importing.stdin is not None
    importing.stdin.write('{"metric": "A", "amount": 1}\n' * 10)
    importing.stdin.flush()
    assert Gateway.answered.wait(WAIT_S)
    told, _ = importing.communicate('{"metric": "A", "amount": 1}\n', WAIT_S)
    assert importing.returncode == 0
    assert told.startswith("lines=11 accepted=11")
