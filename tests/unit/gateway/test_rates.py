"""Token buckets, on a clock that stands still unless a test moves it."""

import pytest

from gateway import rates as rates_module
from gateway.errors import HttpError
from gateway.rates import QUOTAS_MAX, Rates
from services.kit.auth import Principal


class Clock:
    """In the place of the module time."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that rates.py reads."""
    clock = Clock()
    monkeypatch.setattr(rates_module, "time", clock)
    return clock


def principal(key_id: str = "key_1", **limits: int) -> Principal:
    """A key of one organization."""
    return Principal(key_id, "org_1", 2, "test", frozenset({"track"}), **limits)  # type: ignore[arg-type]


def taken(rates: Rates, who: Principal, tries: int) -> int:
    """How many of so many single events are let through now."""
    return sum(rates.caller(who).take_one() is None for _ in range(tries))


def test_a_second_is_let_through_at_once_and_then_as_much_as_comes_back(clock: Clock) -> None:
    rates, who = Rates(), principal(requests_per_s=10)
    assert taken(rates, who, 30) == 10
    clock.now_s += 0.5
    assert taken(rates, who, 30) == 5
    clock.now_s += 60
    assert taken(rates, who, 30) == 10


def test_a_key_is_held_to_its_own_limit_and_leaves_the_rest_to_the_others(clock: Clock) -> None:
    rates = Rates()
    limited = principal("key_1", requests_per_s=10, key_requests_per_s=3)
    assert taken(rates, limited, 30) == 3
    assert taken(rates, principal("key_2", requests_per_s=10), 30) == 7


def test_a_refusal_says_whose_limit_it_is_and_when_it_is_worth_trying_again(clock: Clock) -> None:
    rates, who = Rates(), principal(requests_per_s=1_000, key_events_per_s=10)
    caller = rates.caller(who)
    assert caller.take_events(45) is None
    refusal = caller.take_events(1)
    assert isinstance(refusal, HttpError)
    assert (refusal.status, refusal.code) == (429, "rate_limited")
    assert "this key is 10 events a second" in refusal.message
    # 45 were taken, 10 were there: the next one is in 3.6 s.
    assert refusal.headers["retry-after"] == "4"
    clock.now_s += 3.59
    assert caller.take_events(1) is not None
    clock.now_s += 0.02
    assert caller.take_events(1) is None


def test_what_only_reads_takes_no_events(clock: Clock) -> None:
    caller = Rates().caller(principal(events_per_s=1))
    assert caller.take_events(1) is None
    assert caller.take_events(1) is not None
    assert caller.take_request() is None


def test_a_batch_takes_its_request_first_and_its_events_when_they_are_counted(clock: Clock) -> None:
    caller = Rates().caller(principal(requests_per_s=2, events_per_s=100))
    assert caller.take_events(0) is None
    assert caller.take_events(500, requests=0) is None
    assert caller.take_events(0) is not None
    clock.now_s += 4.02
    assert caller.take_events(0) is None


def test_what_is_owed_is_bounded(clock: Clock) -> None:
    caller = Rates().caller(principal(events_per_s=1))
    caller.take_events(10_000)
    clock.now_s += 62
    assert caller.take_events(1) is None


def test_headers_tell_all_limits_and_what_is_left_of_the_tightest(clock: Clock) -> None:
    rates = Rates()
    who = principal(requests_per_s=100, events_per_s=1_000, key_requests_per_s=10)
    caller = rates.caller(who)
    caller.take_events(1)
    assert caller.head() == {
        "ratelimit-policy": '"organization-requests";q=100;w=1, "key-requests";q=10;w=1, '
        '"organization-events";q=1000;w=1;qu="events"',
        "ratelimit": '"key-requests";r=9;t=1',
    }
    assert caller.lines_of_event() == b""
    for _ in range(5):
        assert caller.take_one() is None
    assert caller.head_of_event() == caller.head()
    assert caller.lines_of_event().endswith(b'\r\nratelimit: "key-requests";r=4;t=1\r\n')


def test_a_changed_limit_holds_at_once(clock: Clock) -> None:
    rates = Rates()
    assert taken(rates, principal(requests_per_s=10), 5) == 5
    assert taken(rates, principal(requests_per_s=1), 5) == 0
    assert taken(rates, principal(requests_per_s=100), 200) == 50


def test_without_the_others_each_gateway_lets_its_part_through(clock: Clock) -> None:
    rates, who = Rates(), principal(requests_per_s=10)
    rates.share.gateways = 2
    assert taken(rates, who, 30) == 5
    clock.now_s += 10
    assert taken(rates, principal("key_2", requests_per_s=10, key_requests_per_s=1), 30) == 1
    clock.now_s += 1
    # A part of less than one a second is still let through, every other second.
    assert taken(rates, principal("key_2", requests_per_s=10, key_requests_per_s=1), 30) == 0
    clock.now_s += 1
    assert taken(rates, principal("key_2", requests_per_s=10, key_requests_per_s=1), 30) == 1


def test_members_are_not_kept_out_by_what_keys_took(clock: Clock) -> None:
    rates = Rates()
    assert taken(rates, principal(requests_per_s=1), 3) == 1
    member = Principal(
        "", "org_1", 2, "test", frozenset({"admin"}), member_id="mem_1", session_id="ses_1"
    )
    assert rates.caller(member).take_request() is None


def test_buckets_are_bounded_and_full_ones_go_first(clock: Clock) -> None:
    rates = Rates()
    busy = principal("key_busy", key_requests_per_s=1)
    assert taken(rates, busy, 2) == 1
    for number in range(QUOTAS_MAX):
        rates.quota(f"key_{number}")
    assert len(rates.quotas()) <= QUOTAS_MAX
    assert taken(rates, busy, 2) == 0
