"""Signatures of what browsers keep: only what we signed, for this purpose, is read."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from services.kit import clock
from services.kit.keys import (
    INVITATION_START,
    PORTAL_START,
    SESSION_START,
    make_key,
    make_token,
)
from services.kit.signatures import Signatures

SECRET = SecretStr("an internal token of 32 characters or more")
SIGNATURES = Signatures(SECRET)
SESSION = make_token(SESSION_START)
LINK = make_token(PORTAL_START)
SOON = datetime(2100, 1, 1, 12, 0, 0, 1, tzinfo=UTC)


def test_what_was_signed_is_read_again_by_every_process() -> None:
    replica = Signatures(SECRET)
    for mode in ("live", "test"):
        assert replica.read_session(SIGNATURES.session(SESSION, mode)) == (SESSION, mode)
    assert replica.read_portal_link(SIGNATURES.portal_link(LINK, SOON)) == LINK


def forged(credential: str) -> list[str]:
    """What somebody may try who has no key but what was signed for them."""
    token, said, signature = credential.split(".")
    other = make_token(token[:4])
    return [
        "",
        ".",
        "..",
        token,
        f"{token}.{said}",
        f"{token}.{said}.",
        f"{token}..{signature}",
        f"{token}.live.{signature}",
        f"{token}.9999999999.{signature}",
        f"{other}.{said}.{signature}",
        f"{token}.{said}.{signature[:-1]}",
        f"{token}.{said}.{signature}=",
        f"{token}.{said}.{signature}.{signature}",
        f"{token}.{said}.{signature.swapcase()}",
        f"{token}.{said}.{'A' * len(signature)}",
        f" {credential}",
        f"{credential}\xe9",
    ]


def test_what_is_forged_changed_or_cut_off_is_not() -> None:
    for credential in (SIGNATURES.session(SESSION, "test"), SIGNATURES.portal_link(LINK, SOON)):
        for wrong in forged(credential):
            assert SIGNATURES.read_session(wrong) is None, wrong
            assert SIGNATURES.read_portal_link(wrong) is None, wrong
        ends = [credential[:length] for length in range(len(credential))]
        assert not any(SIGNATURES.read_session(end) for end in ends)
        assert not any(SIGNATURES.read_portal_link(end) for end in ends)


def test_a_signature_is_for_one_purpose() -> None:
    """Not even our own signature makes a session a link, or another token a session."""
    assert SIGNATURES.read_portal_link(SIGNATURES.session(LINK, "4102488000")) is None
    assert SIGNATURES.read_session(SIGNATURES.portal_link(SESSION, SOON)) is None
    assert SIGNATURES.read_portal_link(SIGNATURES.session(SESSION, "test")) is None
    assert SIGNATURES.read_session(SIGNATURES.portal_link(LINK, SOON)) is None
    for token in (LINK, make_token(INVITATION_START), make_key("live"), SESSION[:-1] + "!"):
        assert SIGNATURES.read_session(SIGNATURES.session(token, "test")) is None
    assert SIGNATURES.read_session(SIGNATURES.session(SESSION, "demo")) is None


def test_another_internal_token_makes_all_of_them_invalid() -> None:
    rotated = Signatures(SecretStr("another internal token of as many characters"))
    assert rotated.read_session(SIGNATURES.session(SESSION, "test")) is None
    assert rotated.read_portal_link(SIGNATURES.portal_link(LINK, SOON)) is None


def test_a_link_ends_with_the_second_in_which_it_was_to(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = SIGNATURES.portal_link(LINK, SOON)
    assert signed.split(".")[1] == str(int(SOON.timestamp()) + 1)
    for after, read in ((timedelta(0), LINK), (timedelta(seconds=1), None)):
        monkeypatch.setattr(clock, "now", lambda after=after: SOON + after)
        assert SIGNATURES.read_portal_link(signed) == read
