"""A whole stack, started once for all tests that only use it; others start their own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.connection import Connection
from cli.stack import running_stack
from tests.e2e.homes import copy_home, prepare_home


@pytest.fixture(scope="package")
def stack_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of `stack`: its secrets, ports and logs."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def prepared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What homes.copy_home() copies."""
    home = tmp_path_factory.mktemp("prepared")
    prepare_home(home)
    yield home
    shutil.rmtree(home)  # pytest would keep it for three more sessions


@pytest.fixture(scope="package")
def stack(stack_home: Path, prepared_home: Path) -> Iterator[Connection]:
    """A running stack with its own data on free ports; invoices are written without delay, and
    budgets looked at all the time.

    It stops with the last test of this directory: idle, it takes a tenth of a core.
    """
    environ = {"USAGEFLOW_INVOICE_GRACE_S": "0", "USAGEFLOW_BUDGET_CHECK_S": "1"}
    with running_stack(copy_home(prepared_home, stack_home), environ=environ) as connection:
        yield connection
