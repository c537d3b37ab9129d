"""How long a died process waits for its restart."""

import pytest

from cli.supervisor import RESTART_DELAY_S_MAX, ended, restart_delay_s


@pytest.mark.parametrize("quick_deaths", [0, 1])
def test_the_first_restart_is_immediate(quick_deaths: int) -> None:
    """However long the process had lived."""
    assert restart_delay_s(quick_deaths) == 0


@pytest.mark.parametrize("quick_deaths", range(2, 7))
def test_the_first_several_restarts_take_less_than_two_seconds(quick_deaths: int) -> None:
    """Even when it dies again and again."""
    assert 0 < restart_delay_s(quick_deaths) < 2


def test_the_delay_is_bounded() -> None:
    """A process that can't live is tried for ever, at a moderate pace."""
    assert restart_delay_s(1_000_000) == RESTART_DELAY_S_MAX


def test_an_end_is_told_in_words() -> None:
    """A signal by its name, an exit by its code."""
    assert ended(-9) == "ended by SIGKILL"
    assert ended(3) == "ended with exit code 3"
