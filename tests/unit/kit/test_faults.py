"""A seeded fault needs two switches, and none is on by itself."""

from collections.abc import Iterator

import pytest

from services.kit import faults
from services.kit.faults import Fault, FaultNotAllowedError


@pytest.fixture(autouse=True)
def _nothing_seeded_afterwards() -> Iterator[None]:
    yield
    faults.install({})


def test_no_fault_is_seeded_by_itself() -> None:
    faults.install({})
    assert not any(faults.seeded(fault) for fault in Fault)


@pytest.mark.parametrize("fault", Fault)
def test_fault_with_both_switches_is_seeded_alone(fault: Fault) -> None:
    faults.install({faults.NAME: fault, faults.ALLOWED: "1"})
    assert [each for each in Fault if faults.seeded(each)] == [fault]


@pytest.mark.parametrize("allowed", [{}, {faults.ALLOWED: ""}, {faults.ALLOWED: "yes"}])
def test_fault_without_the_second_switch_is_refused(allowed: dict[str, str]) -> None:
    with pytest.raises(FaultNotAllowedError, match=faults.ALLOWED):
        faults.install({faults.NAME: "inbox_off", **allowed})
    assert not faults.seeded(Fault.INBOX_OFF)


def test_unknown_fault_is_refused_with_those_that_exist() -> None:
    with pytest.raises(FaultNotAllowedError, match="ack_before_commit, inbox_off"):
        faults.install({faults.NAME: "inbox", faults.ALLOWED: "1"})
