"""Events by column are the events."""

from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain import Event, Tenant
from services.ingest.events import Events

TENANTS = [Tenant(bytes(16), 1), Tenant(bytes(16), 2), Tenant(b"o" * 16, 1)]
TEXTS = st.sampled_from(["", "a", "b"])
EVENTS = st.lists(
    st.builds(
        Event,
        # Few different halves: ids that have one in common are compared by the other.
        event_id=st.binary(min_size=2, max_size=2).map(lambda two: two[:1] * 8 + two[1:] * 8),
        tenant=st.sampled_from(TENANTS),
        metric=TEXTS,
        amount=TEXTS,
        customer_id=TEXTS,
        time_micros=st.integers(0, 3),
        time_sent=st.booleans(),
        metadata_json=TEXTS,
    ),
    max_size=12,
)


@given(EVENTS)
def test_events_are_given_back_as_they_were(events: list[Event]) -> None:
    assert list(Events.of(events)) == events
    assert len(Events.of(events)) == len(events)


@given(EVENTS)
def test_in_the_order_of_their_ids(events: list[Event]) -> None:
    assert list(Events.of(events).by_id()) == sorted(events, key=lambda event: event.event_id)


@given(EVENTS)
def test_tenant_by_tenant(events: list[Event]) -> None:
    found = Events.of(events).by_tenant()
    assert list(found) == sorted({event.tenant for event in events})
    for tenant, members in found.items():
        assert list(members) == [event for event in events if event.tenant == tenant]


@given(st.lists(EVENTS, max_size=3))
def test_joined_and_extended(parts: list[list[Event]]) -> None:
    whole = [event for part in parts for event in part]
    assert list(Events.joined(map(Events.of, parts))) == whole
    grown = Events.of([])
    for part in parts:
        grown.extend(Events.of(part))
    assert grown == Events.of(whole)


@given(EVENTS, st.data())
def test_some_of_them(events: list[Event], data: st.DataObject) -> None:
    positions = data.draw(st.lists(st.sampled_from(range(len(events))))) if events else []
    assert list(Events.of(events).at(positions)) == [events[at] for at in positions]
    start, stop = sorted(data.draw(st.tuples(st.integers(0, 12), st.integers(0, 12))))
    part = Events.of(events)[start:stop]
    assert isinstance(part, Events)
    assert list(part) == events[start:stop]
