"""Logs of child processes."""

from pathlib import Path

from cli import children
from cli.children import LOG_TAIL_BYTES, Command, log_tail, rotate, spawn


def test_a_log_beyond_its_limit_moves_aside(tmp_path: Path) -> None:
    """At the next start; the one moved before is gone then."""
    log = tmp_path / "ingest.log"
    with log.open("wb") as file:
        file.truncate(children.LOG_BYTES_MAX + 1)
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "ingest.log.1").stat().st_size == children.LOG_BYTES_MAX + 1


def test_a_log_within_its_limit_goes_on(tmp_path: Path) -> None:
    """A restart does not lose what the process said before."""
    log = tmp_path / "ingest.log"
    log.write_text("before\n")
    spawn("ingest", Command(["/bin/echo", "after"], {}), log).popen.wait(5)
    assert log.read_text() == "before\nafter\n"


def test_the_tail_of_a_log_starts_with_a_whole_line(tmp_path: Path) -> None:
    """And has at most LOG_TAIL_BYTES."""
    log = tmp_path / "ingest.log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    tail = log_tail(log)
    assert len(tail) <= LOG_TAIL_BYTES
    assert tail.startswith("line ")
    assert tail.endswith("line 9999")


def test_no_log_is_told_as_such(tmp_path: Path) -> None:
    """An error message never ends in nothing."""
    assert log_tail(tmp_path / "none.log") == "(no log)"
    (tmp_path / "empty.log").touch()
    assert log_tail(tmp_path / "empty.log") == "(the log is empty)"
