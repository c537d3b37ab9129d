"""Faults follow from the seed; a full campaign has enough of each."""

from collections import Counter

import pytest

from tests.chaos.schedule import KILLS, MARGIN_S, OTHERS, SERVERS, SERVICES, Kind, plan

FULL_S = 600.0


def test_schedule_follows_from_its_seed() -> None:
    assert plan(7, FULL_S) == plan(7, FULL_S)
    assert plan(7, FULL_S) != plan(8, FULL_S)


@pytest.mark.parametrize("seed", range(1, 6))
def test_full_campaign_has_at_least_a_hundred_kills(seed: int) -> None:
    kills = [fault for fault in plan(seed, FULL_S) if fault.kind in KILLS]
    assert len(kills) >= 100


@pytest.mark.parametrize("seed", range(1, 6))
def test_every_process_is_killed_and_every_kind_of_fault_comes(seed: int) -> None:
    faults = plan(seed, FULL_S)
    killed = Counter(fault.target for fault in faults if fault.kind is Kind.KILL)
    assert killed.keys() == {*SERVICES, *OTHERS, *SERVERS}
    assert {fault.kind for fault in faults} == set(Kind)


def test_faults_come_in_order_and_leave_the_ends_alone() -> None:
    instants = [fault.at_s for fault in plan(1, FULL_S)]
    assert instants == sorted(instants)
    assert instants[0] >= MARGIN_S
    assert instants[-1] <= FULL_S - MARGIN_S
