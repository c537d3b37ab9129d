"""Programs that a test needs but that no Python package brings, and room for what it writes."""

import importlib.util
import os
import shutil
import warnings
from pathlib import Path

import psutil
import pytest

SHARED_MEMORY = Path("/dev/shm")


def require_tool(name: str) -> str:
    """The program's path. Without it the test fails in CI and is skipped, loudly, elsewhere."""
    path = shutil.which(name)
    if path is None:
        _missing(f"{name} is not on the PATH: install it to run this test")
    return str(path)


def require_module(name: str) -> None:
    """As require_tool, for a Python package that only developers need."""
    if importlib.util.find_spec(name) is None:
        _missing(f"the Python package {name} is not installed: see requirements/dev.txt")


def _missing(problem: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(problem)
    warnings.warn(f"SKIPPED: {problem}", stacklevel=3)
    pytest.skip(problem)


def memory_file_system(bytes_min: int) -> Path | None:
    """Linux' file system in memory, when that many bytes fit into it and programs may run there."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    free = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    return SHARED_MEMORY if free >= bytes_min and not found.f_flag & os.ST_NOEXEC else None
