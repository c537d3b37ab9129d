"""Keys of events that have none: the same in every run, and different for different events."""

import json

from hypothesis import given
from hypothesis import strategies as st

from cli.importing.keys import DerivedKeys, with_key
from services.kit.events import check_event

LINES = [b'{"metric":"A","amount":%d}' % number for number in range(5)]


def keys_of(lines: list[bytes], source: str = "") -> list[bytes]:
    keys = DerivedKeys(source)
    return [keys.key(line) for line in lines]


def test_another_run_makes_the_same_keys() -> None:
    assert keys_of(LINES) == keys_of(LINES)


def test_equal_lines_of_a_file_are_different_events() -> None:
    keys = keys_of([LINES[0]] * 3)
    assert len(set(keys)) == 3
    assert keys_of([LINES[0]] * 4)[:3] == keys


@given(st.lists(st.sampled_from(LINES)), st.randoms())
def test_the_order_of_lines_does_not_matter(lines: list[bytes], random: object) -> None:
    shuffled = sorted(lines, key=lambda _line: random.random())  # type: ignore[attr-defined]
    assert sorted(keys_of(lines)) == sorted(keys_of(shuffled))


@given(st.lists(st.sampled_from(LINES)), st.lists(st.sampled_from(LINES)))
def test_lines_that_are_added_or_removed_leave_the_keys_of_others(
    lines: list[bytes], more: list[bytes]
) -> None:
    """So a file that was put right, or has grown, can be imported again."""
    assert set(keys_of(lines)) <= set(keys_of(more + lines))


def test_sources_tell_equal_lines_of_two_files_apart() -> None:
    assert not set(keys_of(LINES, "january")) & set(keys_of(LINES, "february"))
    assert keys_of(LINES, "january") == keys_of(LINES, "january")


def test_a_derived_key_is_a_key() -> None:
    [key] = keys_of(LINES[:1])
    assert len(key) == len("import-") + 32
    assert check_event("A", "1", "", None, "", key.decode(), 0) == []


def test_a_key_is_added_to_any_object() -> None:
    for event in (b"{}", b"{ }", b'{"a":1}', b'{"a":1 }', b'{"a":{}}'):
        expected = json.loads(event) | {"idempotencyKey": "k"}
        assert json.loads(with_key(event, b"k")) == expected
