"""The OpenAPI document is true: schemathesis makes requests of it and compares the answers."""

import subprocess
import sys
from pathlib import Path

import pytest

from cli.connection import Connection
from tests.e2e.api import Api, new_organization

SEED = "7"
EXAMPLES_MAX = "4"
SECONDS_MAX = 240  # of each run; a bound for a busy machine: both take 30 s
CONFIG = Path(__file__).with_name("schemathesis.toml")


# Given one of its own, it would end the key that it works with.
ENDS_KEYS = ("revokeKey", "deleteKey")


@pytest.mark.timeout(2 * SECONDS_MAX + 60)
def test_every_answer_is_as_the_document_says(
    stack: Connection, stack_home: Path, tmp_path: Path
) -> None:
    """In organizations of its own: it changes whatever it finds."""
    others = [argument for name in ENDS_KEYS for argument in ("--exclude-operation-id", name)]
    alone = [argument for name in ENDS_KEYS for argument in ("--include-operation-id", name)]
    for chosen in (others, alone):
        api = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
        api.post("/api/metrics", {"key": "API_CALL"})
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)),
            *("run", f"{stack.http}/api/openapi.json", *chosen),
            *("--header", f"x-usageflow-api-key: {api.api_key}"),
            *("--seed", SEED, "--max-examples", EXAMPLES_MAX, "--no-color"),
        ]
        ran = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS_MAX
        )
        assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
