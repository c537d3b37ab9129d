"""On what the figures were taken: without it they mean nothing."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from cli.embedded import postgres_program

BUSY_SAMPLE_S = 2.0
COMMAND_S_MAX = 10.0
PACKAGES = ("uvloop", "uvicorn", "httptools", "msgspec", "grpcio", "protobuf", "asyncpg", "nats-py")


def describe(*, quick: bool) -> dict[str, object]:
    """The machine and the versions, with how busy others keep it before the benchmark begins."""
    memory_mb = psutil.virtual_memory().total // 1024**2
    return {
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mb": memory_mb,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "postgres": output(str(postgres_program("postgres")), "--version"),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": output("git", "describe", "--always", "--dirty"),
        "quick": quick,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "busy_before_percent": psutil.cpu_percent(interval=BUSY_SAMPLE_S),
    }


def cpu_model(cpuinfo: str) -> str:
    """The processor's name as Linux tells it; "unknown" where it does not."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown"


def output(*command: str) -> str:
    """What a program prints; "unknown" when it can't be run."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
