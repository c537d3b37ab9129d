"""Signatures, verified by the package of the Standard Webhooks project."""

import base64
import time

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from services.notifier.signing import (
    SigningKey,
    format_public_key,
    make_key,
    parse_secret,
    signature_header,
)

BODY = '{"type":"invoice.created","data":{"name":"Zoë"}}'.encode()
K = SigningKey("v1", b"k" * 32)


def headers(
    keys: list[SigningKey], *, at_s: int | None = None, body: bytes = BODY
) -> dict[str, str]:
    timestamp_s = int(time.time()) if at_s is None else at_s
    return {
        "webhook-id": "whevt_1",
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signature_header(keys, "whevt_1", timestamp_s, body),
    }


def test_a_secret_is_whsec_and_the_base64_of_its_bytes() -> None:
    key = make_key("v1")
    prefix, _, encoded = key.secret.partition("_")
    assert prefix == "whsec"
    assert base64.b64decode(encoded, validate=True) == key.key
    assert 24 <= len(key.key) <= 64


def test_secrets_do_not_repeat() -> None:
    assert len({make_key("v1") for _ in range(100)}) == 100


def test_the_signature_is_verified_with_the_secret() -> None:
    key = make_key("v1")
    verified = Webhook(key.secret).verify(BODY, headers([key]))
    assert verified["type"] == "invoice.created"


def test_while_a_secret_is_rotated_both_verify() -> None:
    old, new = make_key("v1"), make_key("v1")
    both = headers([new, old])
    assert len(both["webhook-signature"].split(" ")) == 2
    for key in (old, new):
        assert Webhook(key.secret).verify(BODY, both)


@pytest.mark.parametrize(
    "forged",
    [
        headers([SigningKey("v1", b"x" * 32)]),
        {**headers([K]), "webhook-id": "whevt_2"},
        {**headers([K]), "webhook-timestamp": str(int(time.time()) - 1)},
        headers([K], at_s=int(time.time()) - 3_600),
        headers([K], body=BODY + b" "),
    ],
)
def test_anything_else_is_not_verified(forged: dict[str, str]) -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(K.secret).verify(BODY, forged)


def test_the_example_of_the_specification_comes_out() -> None:
    """github.com/standard-webhooks/standard-webhooks, libraries' test vector."""
    key = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    header = signature_header(
        [key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert header == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_an_ed25519_key_signs_what_its_public_key_verifies() -> None:
    key = make_key("v1a")
    header = signature_header([key], "whevt_1", 1_700_000_000, BODY)
    version, _, encoded = header.partition(",")
    assert version == "v1a"
    prefix, _, public = format_public_key(key.public_key).partition("_")
    assert prefix == "whpk"
    verifier = Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
    verifier.verify(base64.b64decode(encoded), b"whevt_1.1700000000." + BODY)
    with pytest.raises(InvalidSignature):
        verifier.verify(base64.b64decode(encoded), b"whevt_2.1700000000." + BODY)


def test_the_secret_of_an_ed25519_key_is_shown_to_nobody() -> None:
    assert make_key("v1a").secret == ""


def test_ed25519_signs_as_rfc_8032_says() -> None:
    """RFC 8032, 7.1, test 2, with the seed alone and with the public key after it."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    expected = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    for material in (seed, seed + public):
        key = parse_secret("whsk_" + base64.b64encode(material).decode())
        assert key.public_key == public
        assert key.sign(b"\x72") == "v1a," + base64.b64encode(expected).decode()


@pytest.mark.parametrize("length", [24, 32, 64])
def test_a_secret_of_the_caller_s_own_is_taken(length: int) -> None:
    secret = "whsec_" + base64.b64encode(b"o" * length).decode()
    assert parse_secret(secret).secret == secret


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ("secret", "begin with whsec_ or whsk_"),
        ("whpk_" + "A" * 44, "begin with whsec_ or whsk_"),
        ("whsec_" + base64.b64encode(b"o" * 23).decode(), "24 to 64 bytes"),
        ("whsec_" + base64.b64encode(b"o" * 65).decode(), "24 to 64 bytes"),
        ("whsec_!" * 10, "base64"),
        ("whsec_é", "base64"),
        ("whsk_" + base64.b64encode(b"o" * 31).decode(), "32 or 64 bytes"),
        ("whsk_" + base64.b64encode(b"o" * 64).decode(), "its own public key"),
    ],
)
def test_any_other_secret_is_refused_with_the_reason(secret: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_secret(secret)
