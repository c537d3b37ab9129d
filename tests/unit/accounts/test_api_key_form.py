"""The form of API keys."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.keys import checksum, looks_like_key, make_key

BASE62 = string.digits + string.ascii_letters


@pytest.mark.parametrize("mode", ["live", "test"])
def test_a_new_key_names_its_mode_and_passes_its_own_check(mode: str) -> None:
    key = make_key(mode)
    assert key.startswith(f"uf_{mode}_")
    assert len(key) == len("uf_live_") + 32 + 6
    assert looks_like_key(key)


def test_there_is_no_key_for_an_unknown_mode() -> None:
    with pytest.raises(ValueError, match="no such mode"):
        make_key("production")


def test_keys_do_not_repeat() -> None:
    assert len({make_key("test") for _ in range(1_000)}) == 1_000


def test_the_checksum_stays_what_it_was() -> None:
    """Keys that were given out must stay valid: CRC32("uf_test_" + 32 zeros) is 0xDB04572A."""
    body = "uf_test_" + "0" * 32
    assert checksum(body) == "40fnwY"
    assert looks_like_key(body + "40fnwY")


@given(position=st.integers(0, 45), replacement=st.sampled_from(BASE62 + "_-"))
def test_any_single_wrong_character_is_noticed(position: int, replacement: str) -> None:
    key = make_key("live")
    mistyped = key[:position] + replacement + key[position + 1 :]
    assert looks_like_key(mistyped) == (mistyped == key)


@given(st.text(max_size=60))
def test_other_texts_are_no_keys(text: str) -> None:
    assert not looks_like_key(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key + "\n",
        lambda key: " " + key,
        lambda key: key.upper(),
        lambda key: key.replace("uf_live_", "uf_test_"),
    ],
)
def test_a_damaged_key_is_no_key(change) -> None:  # type: ignore[no-untyped-def]
    assert not looks_like_key(change(make_key("live")))
