"""`usageflow service NAME`."""

import subprocess
import sys

import pytest

from cli.plan import PARTS


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command with these arguments and an empty environment."""
    return subprocess.run(
        [sys.executable, "-m", "cli", "service", *arguments],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_unknown_service_is_refused_with_those_there_are() -> None:
    """Exit code 2, as for any wrong argument."""
    done = run("digest")
    assert done.returncode == 2
    for part in PARTS:
        assert part in done.stderr


@pytest.mark.parametrize("part", PARTS)
def test_a_service_without_its_settings_names_the_missing_one(part: str) -> None:
    """It is the service itself that runs, and says what it needs."""
    done = run(part)
    assert done.returncode == 1
    assert "nats_url" in done.stderr
