"""Processes that a killed supervisor left behind: they end by themselves, but in a while."""

import contextlib
import signal

import psutil

from cli.children import stop_leftover
from cli.files import read_json
from cli.home import Home
from cli.plan import PARTS, module

LEFTOVER_STOP_S = 3.0  # they are stopping already, and killing them loses nothing acknowledged


def stop_leftover_services(home: Home) -> None:
    """Stop the services that pids.json names and that are really this home's."""
    for name, pid in read_json(home.pids).items():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if is_ours(process, home, name):
                stop_leftover(process, signal.SIGTERM, LEFTOVER_STOP_S)


def is_ours(process: psutil.Process, home: Home, name: str) -> bool:
    """Whether the process runs the named part for this home: its pid may be a stranger's by now."""
    part = name.partition("-")[0]
    if part not in PARTS:
        return False
    return module(part) in process.cmdline() and process.environ().get("USAGEFLOW_HOME") == str(
        home.path
    )
