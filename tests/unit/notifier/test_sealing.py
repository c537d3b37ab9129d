"""Secrets at rest."""

import pytest

from services.notifier.sealing import Sealer, SealError

KEY, OLD_KEY = "k" * 32, "o" * 32


def test_what_was_sealed_opens_in_its_place_only() -> None:
    sealer = Sealer([KEY])
    sealed = sealer.seal(b"secret", "whe_1 secret")
    assert b"secret" not in sealed
    assert sealer.open(sealed, "whe_1 secret") == b"secret"
    with pytest.raises(SealError, match="this place"):
        sealer.open(sealed, "whe_2 secret")


def test_the_same_secret_is_never_sealed_alike_twice() -> None:
    sealer = Sealer([KEY])
    assert sealer.seal(b"secret", "p") != sealer.seal(b"secret", "p")


def test_after_a_change_of_keys_the_older_one_still_opens_and_the_new_one_seals() -> None:
    sealed = Sealer([OLD_KEY]).seal(b"secret", "p")
    both = Sealer([KEY, OLD_KEY])
    assert both.open(sealed, "p") == b"secret"
    assert Sealer([KEY]).open(both.seal(b"secret", "p"), "p") == b"secret"


def test_another_key_opens_nothing_and_says_so() -> None:
    sealed = Sealer([OLD_KEY]).seal(b"secret", "p")
    with pytest.raises(SealError, match="WEBHOOK_SECRETS_KEY"):
        Sealer([KEY]).open(sealed, "p")


@pytest.mark.parametrize("position", [9, 20, -1])
def test_a_changed_bit_does_not_open(position: int) -> None:
    sealer = Sealer([KEY])
    sealed = bytearray(sealer.seal(b"secret", "p"))
    sealed[position] ^= 1
    with pytest.raises(SealError):
        sealer.open(bytes(sealed), "p")
