"""The opaque token that an answer carries, so that a usage query can wait for what it stored."""

import base64
import contextlib
import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit import usage_token
from services.kit.errors import InvalidArgumentError

T0 = datetime(2026, 11, 22, 18, 30, 0, 123456, tzinfo=UTC)
A, B, C, D, E = (UUID(int=number) for number in range(1, 6))

times = st.datetimes(timezones=st.just(UTC))
some_ids = st.lists(st.uuids(), max_size=4)


@given(some_ids, times)
def test_a_token_gives_back_what_it_was_made_of(ids: list[UUID], time: datetime) -> None:
    assert usage_token.decode(usage_token.encode(ids, time)) == (tuple(ids), time)


@given(some_ids, times)
def test_a_token_is_short_and_needs_no_escaping_anywhere(ids: list[UUID], time: datetime) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,98}", usage_token.encode(ids, time))


def test_a_time_of_another_zone_is_the_same_instant() -> None:
    elsewhere = T0.astimezone(datetime.now().astimezone().tzinfo)
    assert usage_token.encode([A], elsewhere) == usage_token.encode([A], T0)


def test_of_many_batches_only_the_instant_is_kept() -> None:
    assert usage_token.decode(usage_token.encode([A, B, C, D, E], T0)) == ((), T0)


def base64_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "!!!!",
        "a b",
        "\u00e4\u00f6\u00fc",
        "A" * 513,
        base64_of(b"\x01" + bytes(7)),
        base64_of(b"\x02" + bytes(8)),
        base64_of(b"\x01" + bytes(8) + bytes(15)),
        base64_of(b"\x01" + bytes(8) + bytes(16 * 5)),
        base64_of(b"\x01\x7f" + bytes(7)),
        usage_token.encode([A], T0) + "=",
        usage_token.encode([A], T0)[:-1],
    ],
)
def test_what_is_no_token_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        usage_token.decode(text)
    assert [problem.field for problem in refusal.value.problems] == ["usageToken"]


@given(st.text(max_size=600))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidArgumentError):
        usage_token.decode(text)


def test_tokens_of_several_calls_become_one_with_the_newest_instant() -> None:
    later = T0 + timedelta(seconds=1)
    joined = usage_token.join([usage_token.encode([A, B], later), usage_token.encode([B, C], T0)])
    assert usage_token.decode(joined) == ((A, B, C), later)


def test_joined_tokens_of_many_batches_keep_only_the_instant() -> None:
    joined = usage_token.join([usage_token.encode([A, B, C], T0), usage_token.encode([D, E], T0)])
    assert usage_token.decode(joined) == ((), T0)


def test_a_token_without_batches_is_not_forgotten_beside_one_with_some() -> None:
    later = T0 + timedelta(seconds=1)
    joined = usage_token.join([usage_token.encode([A], T0), usage_token.encode([], later)])
    assert usage_token.decode(joined) == ((), later)


def test_no_token_is_joined_to_none() -> None:
    assert usage_token.join([]) == ""
    assert usage_token.join(["", usage_token.encode([A], T0)]) == usage_token.encode([A], T0)
