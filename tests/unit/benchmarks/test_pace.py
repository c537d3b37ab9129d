import pytest

from benchmarks.generators.pace import Pace


def test_every_request_is_due_once_at_its_instant() -> None:
    pace = Pace(rate_per_s=100, start_s=10.0)
    assert pace.take(10.0) == [10.0]
    assert pace.take(10.005) == []
    assert pace.take(10.031) == pytest.approx([10.01, 10.02, 10.03])
    assert pace.take(10.031) == []


def test_a_stall_is_caught_up_at_the_scheduled_instants() -> None:
    pace = Pace(rate_per_s=1_000, start_s=0.0)
    taken = pace.take(0.5)
    assert len(taken) == 501
    assert taken[-1] == pytest.approx(0.5)
