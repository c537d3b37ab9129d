"""What the user that PostgreSQL runs as can reach."""

import pwd
from pathlib import Path

import pytest

from cli.unprivileged import closed_directory, may_execute, run_as

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that everybody may execute, below a directory that only we may enter."""
    directory = tmp_path / "closed"
    directory.mkdir(mode=0o700)
    path = directory / "program"
    path.touch(mode=0o755)
    path.chmod(0o755)
    return path


def test_a_closed_directory_is_found(program: Path) -> None:
    """The outermost one, which is what has to be named."""
    found = closed_directory(NOBODY, program)
    assert found is not None
    assert found in program.parents
    assert not may_execute(NOBODY, found)


def test_open_directories_need_no_capability() -> None:
    """Less power where it is not needed."""
    shell = Path("/bin/sh").resolve()
    assert closed_directory(NOBODY, shell) is None
    assert run_as(NOBODY, shell, shell).capabilities == ()


def test_a_closed_directory_needs_the_capability_to_search(program: Path) -> None:
    """The weaker of two is tried first."""
    wanted = run_as(NOBODY, program, program)
    assert wanted.capabilities == ("CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE")


def test_a_closed_program_needs_the_stronger_capability(program: Path) -> None:
    """Searching directories does not make a file executable."""
    program.chmod(0o700)
    assert run_as(NOBODY, program, program).capabilities == ("CAP_DAC_OVERRIDE",)
