"""A key filter never says that a key it was given is missing, and seldom the opposite."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.key_filter import HashedIds, KeyFilter

IDS = st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=300)


@given(IDS, st.integers(min_value=0, max_value=1_000))
def test_every_id_that_was_added_is_found(ids: list[bytes], room: int) -> None:
    key_filter = KeyFilter.for_keys(room)
    key_filter.add(HashedIds(b"".join(ids)))
    assert key_filter.find(HashedIds(b"".join(ids))).tolist() == list(range(len(ids)))


@given(IDS, IDS)
def test_adding_more_loses_nothing(first: list[bytes], second: list[bytes]) -> None:
    key_filter = KeyFilter.for_keys(100)
    key_filter.add(HashedIds(b"".join(first)))
    key_filter.add(HashedIds(b"".join(second)))
    assert len(key_filter.find(HashedIds(b"".join(first)))) == len(first)


@given(IDS)
def test_what_is_stored_and_read_again_is_the_same_filter(ids: list[bytes]) -> None:
    key_filter = KeyFilter.for_keys(len(ids))
    key_filter.add(HashedIds(b"".join(ids)))
    again = KeyFilter.from_bytes(key_filter.to_bytes())
    assert again.to_bytes() == key_filter.to_bytes()
    assert len(again.find(HashedIds(b"".join(ids)))) == len(ids)


@given(IDS, IDS)
def test_filters_are_put_together(first: list[bytes], second: list[bytes]) -> None:
    one, other, both = (KeyFilter.for_keys(1_000) for _ in range(3))
    one.add(HashedIds(b"".join(first)))
    other.add(HashedIds(b"".join(second)))
    both.add(HashedIds(b"".join(first + second)))
    united = one.united(other)
    assert united is not None
    assert united.to_bytes() == both.to_bytes()
    assert one.united(KeyFilter.for_keys(2_000)) is None


@pytest.mark.parametrize("count", [1_000, 100_000])
def test_of_other_ids_few_are_found(count: int) -> None:
    chance = random.Random(20)
    key_filter = KeyFilter.for_keys(count)
    key_filter.add(HashedIds(chance.randbytes(16 * count)))
    found = key_filter.find(HashedIds(chance.randbytes(16 * 100_000)))
    assert len(found) < 1_000


@given(IDS)
def test_every_id_that_was_added_is_found_in_a_second_filter(ids: list[bytes]) -> None:
    key_filter = KeyFilter.for_keys(len(ids))
    hashed = HashedIds(b"".join(ids))
    key_filter.add(hashed.for_second())
    assert len(key_filter.find(hashed.for_second())) == len(ids)
    some = np.arange(len(ids), dtype=np.intp)[::2]
    assert len(key_filter.find(hashed.for_second(some))) == len(some)


def test_what_passes_a_filter_by_chance_seldom_passes_the_second() -> None:
    chance = random.Random(21)
    first, second = KeyFilter.for_keys(10_000), KeyFilter.for_keys(10_000)
    stored = HashedIds(chance.randbytes(16 * 10_000))
    first.add(stored)
    second.add(stored.for_second())
    others = HashedIds(chance.randbytes(16 * 200_000))
    passed = first.find(others)
    assert 500 < len(passed) < 2_000
    assert len(second.find(others.for_second(passed))) < len(passed) / 50


def test_a_key_takes_a_byte_and_a_half() -> None:
    assert KeyFilter.for_keys(2_000_000).size_bytes == pytest.approx(3_000_000, rel=0.01)


def test_only_the_positions_of_what_may_be_there_are_given() -> None:
    key_filter = KeyFilter.for_keys(1_000)
    ids = [random.Random(number).randbytes(16) for number in range(10)]
    key_filter.add(HashedIds(ids[3] + ids[7]))
    assert key_filter.find(HashedIds(b"".join(ids))).tolist() == [3, 7]
