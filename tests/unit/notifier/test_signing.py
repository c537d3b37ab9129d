"""Signatures, verified by the package of the Standard Webhooks project."""

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from services.notifier.signing import format_secret, make_key, signature_header

BODY = '{"type":"invoice.created","data":{"name":"Zoë"}}'.encode()


def headers(keys: list[bytes], *, at_s: int | None = None, body: bytes = BODY) -> dict[str, str]:
    timestamp_s = int(time.time()) if at_s is None else at_s
    return {
        "webhook-id": "whevt_1",
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signature_header(keys, "whevt_1", timestamp_s, body),
    }


def test_a_secret_is_whsec_and_the_base64_of_its_bytes() -> None:
    key = make_key()
    prefix, _, encoded = format_secret(key).partition("_")
    assert prefix == "whsec"
    assert base64.b64decode(encoded, validate=True) == key
    assert 24 <= len(key) <= 64


def test_secrets_do_not_repeat() -> None:
    assert len({make_key() for _ in range(100)}) == 100


def test_the_signature_is_verified_with_the_secret() -> None:
    key = make_key()
    verified = Webhook(format_secret(key)).verify(BODY, headers([key]))
    assert verified["type"] == "invoice.created"


def test_while_a_secret_is_rotated_both_verify() -> None:
    old, new = make_key(), make_key()
    both = headers([new, old])
    assert len(both["webhook-signature"].split(" ")) == 2
    for key in (old, new):
        assert Webhook(format_secret(key)).verify(BODY, both)


@pytest.mark.parametrize(
    "forged",
    [
        headers([b"x" * 32]),
        {**headers([b"k" * 32]), "webhook-id": "whevt_2"},
        {**headers([b"k" * 32]), "webhook-timestamp": str(int(time.time()) - 1)},
        headers([b"k" * 32], at_s=int(time.time()) - 3_600),
        headers([b"k" * 32], body=BODY + b" "),
    ],
)
def test_anything_else_is_not_verified(forged: dict[str, str]) -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(format_secret(b"k" * 32)).verify(BODY, forged)


def test_the_example_of_the_specification_comes_out() -> None:
    """github.com/standard-webhooks/standard-webhooks, libraries' test vector."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    header = signature_header(
        [key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert header == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
