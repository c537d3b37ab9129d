"""The fixtures that every other integration test stands on."""

import os
import subprocess
import sys
from pathlib import Path

import nats
import pytest

from cli.databases import connected
from tests.conftest import TEMPORARY_BYTES_MAX
from tests.tools import memory_file_system


async def test_database_url_is_an_empty_database_of_its_own_role(database_url: str) -> None:
    """Whoever gets the URL may make tables in it, and finds none."""
    async with connected(database_url) as connection:
        await connection.execute("CREATE TABLE mine (id int)")
        tables = await connection.fetchval(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        )
    assert tables == 1


@pytest.mark.parametrize("round_number", [1, 2])
async def test_nats_url_has_no_stream_of_an_earlier_test(nats_url: str, round_number: int) -> None:
    """A stream that one test makes is gone in the next."""
    connection = await nats.connect(nats_url)
    try:
        jetstream = connection.jetstream()
        assert await jetstream.streams_info() == []
        await jetstream.add_stream(name=f"S{round_number}", subjects=["s.>"])
        await jetstream.publish("s.1", b"kept")
    finally:
        await connection.close()


def test_tests_write_to_memory_where_there_is_enough(tmp_path: Path) -> None:
    memory = memory_file_system(TEMPORARY_BYTES_MAX)
    assert memory is None or tmp_path.is_relative_to(os.environ["PYTEST_DEBUG_TEMPROOT"])
    assert memory_file_system(1 << 60) is None


def test_processes_of_tests_keep_their_bytecode() -> None:
    """Also where Python is told not to: a stack's processes would each compile all of our code."""
    program = "import sys; sys.exit(sys.dont_write_bytecode)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
