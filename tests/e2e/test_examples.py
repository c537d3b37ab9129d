"""The clients in examples/, run against a real stack over a network that loses answers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from cli.children import Child, Command, launched, log_tail, spawn
from cli.connection import Connection
from cli.ports import free_port
from tests.e2e.api import Api, wait_for
from tests.e2e.lossy_relay import LossyRelay
from tests.tools import require_tool

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NODE_EXAMPLES = ("node", "express", "nextjs")
INSTALL_S_MAX = 300
START_S_MAX = 60.0
STOP_S_MAX = 10.0
REQUEST_S_MAX = 30.0

# The first test that needs an example installs it.
pytestmark = pytest.mark.timeout(2 * INSTALL_S_MAX)

Installed = Callable[[str], Path]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Installs an example of Node.js as its README says, in a copy, once a session."""
    copies: dict[str, Path] = {}

    def install(name: str) -> Path:
        if name not in copies:
            copy = tmp_path_factory.mktemp("examples") / name
            ignored = shutil.ignore_patterns("node_modules", ".next")
            shutil.copytree(EXAMPLES / name, copy, ignore=ignored)
            npm(copy, "ci", "--no-audit", "--no-fund")
            if "build" in json.loads((copy / "package.json").read_text())["scripts"]:
                npm(copy, "run", "build")
            copies[name] = copy
        return copies[name]

    return install


def npm(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        [require_tool("npm"), *arguments],
        cwd=directory,
        env={**os.environ, "NEXT_TELEMETRY_DISABLED": "1"},
        capture_output=True,
        text=True,
        timeout=INSTALL_S_MAX,
        check=False,
    )
    assert done.returncode == 0, f"npm {arguments}:\n{done.stdout}\n{done.stderr}"


def command(name: str, installed: Installed) -> tuple[Path, list[str]]:
    """Where and how an example is started."""
    if name == "python":
        return EXAMPLES / "python", [sys.executable, "server.py"]
    node = require_tool("node")
    if name == "nextjs":
        next_program = "node_modules/next/dist/bin/next"
        return installed(name), [node, next_program, "start", "--hostname", "127.0.0.1"]
    return installed(name), [node, "server.js"]


@contextmanager
def product(
    name: str, installed: Installed, environment: dict[str, str], log: Path
) -> Iterator[httpx.Client]:
    """An example as a running product, and an HTTP client of it."""
    directory, argv = command(name, installed)
    port = free_port()
    own = {"PORT": str(port), "NEXT_TELEMETRY_DISABLED": "1", **environment}
    child = spawn(
        name,
        Command(
            launched(argv, death_signal=signal.SIGTERM),
            {"PATH": os.environ["PATH"], **own},
            cwd=directory,
        ),
        log,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=REQUEST_S_MAX, trust_env=False) as client:
            wait_for(f"{name} at {url}", lambda: listens(client, child), START_S_MAX)
            yield client
    finally:
        child.stop(signal.SIGTERM, STOP_S_MAX)


def listens(client: httpx.Client, child: Child) -> bool:
    assert child.running, f"{child.name} has ended:\n{log_tail(child.log)}"
    try:
        client.get("/")
    except httpx.TransportError:
        return False
    return True


# What a request to the example records: metric and amount.
CHAT = [("API_CALL", "1")]
REQUESTS = [
    pytest.param("node", "POST", "/api/chat", [*CHAT, ("AI_TOKEN", "1500")], id="node"),
    pytest.param("express", "POST", "/api/chat", CHAT, id="express"),
    pytest.param("express", "GET", "/api/report", CHAT, id="express, another route"),
    pytest.param("nextjs", "POST", "/api/chat", CHAT, id="nextjs"),
    pytest.param("python", "POST", "/api/chat", CHAT, id="python"),
    pytest.param("python", "POST", "/api/files", [("STORAGE_GB", "2")], id="python, storage"),
    pytest.param("python", "POST", "/api/jobs", [("JOB_RUN", "1")], id="python, a job"),
]
REQUESTS_SENT = 3


@pytest.mark.parametrize(("name", "method", "path", "recorded"), REQUESTS)
def test_usage_arrives_once_although_every_first_answer_is_lost(
    name: str,
    method: str,
    path: str,
    recorded: list[tuple[str, str]],
    installed: Installed,
    stack: Connection,
    tmp_path: Path,
) -> None:
    api = Api(stack.http, stack.api_key)
    customer = f"{name}_{uuid.uuid4().hex}"
    with LossyRelay(stack.http) as relay:
        environment = {"USAGEFLOW_URL": relay.url, "USAGEFLOW_API_KEY": stack.api_key}
        with product(name, installed, environment, tmp_path / "log") as client:
            for _ in range(REQUESTS_SENT):
                answer = client.request(method, path, headers={"x-user-id": customer})
                assert answer.status_code == 200, answer.text
    assert relay.answers_lost == REQUESTS_SENT * len(recorded)
    assert relay.answers_given == [200] * relay.answers_lost

    events = api.get("/api/events", customerId=customer)["data"]
    assert sorted((event["metric"], event["amount"]) for event in events) == sorted(
        REQUESTS_SENT * recorded
    )
    for metric, amount in recorded:
        api.await_usage(str(REQUESTS_SENT * int(amount)), metric=metric, customerId=customer)


def test_tokens_carry_the_model(installed: Installed, stack: Connection, tmp_path: Path) -> None:
    customer = f"node_{uuid.uuid4().hex}"
    environment = {"USAGEFLOW_URL": stack.http, "USAGEFLOW_API_KEY": stack.api_key}
    with product("node", installed, environment, tmp_path / "log") as client:
        client.post("/api/chat", headers={"x-user-id": customer})
    events = Api(stack.http, stack.api_key).get("/api/events", customerId=customer)["data"]
    assert [event["metadata"] for event in events if event["metric"] == "AI_TOKEN"] == [
        {"model": "gpt-4"}
    ]


@pytest.mark.parametrize(
    ("name", "status"), [("node", 503), ("express", 200), ("nextjs", 503), ("python", 503)]
)
def test_refused_usage_is_not_tried_again_and_is_logged(
    name: str, status: int, installed: Installed, stack: Connection, tmp_path: Path
) -> None:
    wrong_key = "uf_test_nobody"
    with LossyRelay(stack.http) as relay:
        environment = {"USAGEFLOW_URL": relay.url, "USAGEFLOW_API_KEY": wrong_key}
        with product(name, installed, environment, tmp_path / "log") as client:
            assert client.post("/api/chat").status_code == status
    assert relay.answers_given == [401]
    assert "not recorded" in (tmp_path / "log").read_text()
    assert wrong_key not in (tmp_path / "log").read_text()


# The events of the page that the examples come from, sent as it says.
PAGE_EVENTS = [
    {"metric": "API_CALL", "amount": 1, "customerId": "user_123"},
    {
        "metric": "AI_TOKEN",
        "amount": 1500,
        "customerId": "user_123",
        "metadata": {"model": "gpt-4"},
    },
    {"metric": "STORAGE_GB", "amount": 2, "customerId": "user_456"},
    {"metric": "JOB_RUN", "amount": 1, "customerId": "user_789"},
    {
        "metric": "API_CALL",
        "amount": 1,
        "customerId": "user_123",
        "metadata": {"endpoint": "/v1/chat", "region": "us-east-1"},
    },
]


@pytest.mark.parametrize("event", PAGE_EVENTS, ids=lambda event: str(event["metric"]))
def test_events_of_the_integration_page_are_accepted(
    event: dict[str, object], stack: Connection
) -> None:
    headers = {
        "Content-Type": "application/json",
        "x-usageflow-api-key": stack.api_key,
        "Idempotency-Key": str(uuid.uuid4()),
    }
    content = json.dumps(event)
    answer = httpx.post(f"{stack.http}/api/track", content=content, headers=headers)
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert answer.json()["eventId"].startswith("evt_")


@pytest.mark.parametrize("name", NODE_EXAMPLES)
def test_lock_files_name_versions_and_no_registry(name: str) -> None:
    lock = json.loads((EXAMPLES / name / "package-lock.json").read_text())
    packages = {path: entry for path, entry in lock["packages"].items() if path}
    assert packages
    assert [path for path, entry in packages.items() if "resolved" in entry] == [], (
        "npm install --package-lock-only --omit-lockfile-registry-resolved"
    )
    wanted = json.loads((EXAMPLES / name / "package.json").read_text())["dependencies"]
    for package, pinned in wanted.items():
        assert packages[f"node_modules/{package}"]["version"] == pinned


def test_python_example_pins_the_version_that_is_tested() -> None:
    pins = (EXAMPLES / "python" / "requirements.txt").read_text().split()
    assert pins == [f"requests=={version('requests')}"]
