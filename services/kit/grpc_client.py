"""gRPC channels: retries for what is safe to repeat, quick reconnection, message limits.

Every call takes a deadline: pass `timeout=DEADLINE_S` or a better one.
"""

import json
from collections.abc import Sequence

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from pydantic import SecretStr

from services.kit import context
from services.kit.keys import NO_KEY_STARTS

DEADLINE_S = 10.0
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
# Of answers: what is wrong with a request travels there.
METADATA_BYTES_MAX = 64 * 1024
KEEPALIVE_MS = 30_000
RECONNECT_MS_MAX = 1_000

INTERNAL_TOKEN_HEADER = "x-usageflow-internal-token"  # noqa: S105 (a header's name)
API_KEY_HEADER = "x-usageflow-api-key"
# An idempotency key, and of an answer: that an earlier call with the same key had made it.
IDEMPOTENCY_HEADER = "idempotency-key"
REPLAYED_HEADER = "idempotent-replayed"
SESSION_HEADER = "x-usageflow-session"
# With the internal token: the address of whoever a gateway calls for. Without it, nobody's.
CLIENT_ADDRESS_HEADER = "x-usageflow-client-address"

Metadata = tuple[tuple[str, str], ...]

# Methods with these names change nothing, or change the same thing once when repeated.
_REPEATABLE = ("Get", "List", "Query", "Quote", "Preview", "Check", "Resolve", "Record", "Void")
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "1s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def open_channel(address: str, services: Sequence[ServiceDescriptor] = ()) -> grpc.aio.Channel:
    """A channel to `address`: "host:port", or "ipv4:host:port,host:port" for several replicas.

    `services` are those called over it: their repeatable methods are retried on UNAVAILABLE.
    """
    names = [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if method.name.startswith(_REPEATABLE)
    ]
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if names:
        config["methodConfig"] = [{"name": names, "retryPolicy": _RETRY_POLICY}]
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.service_config", json.dumps(config)),
            ("grpc.enable_retries", 1),
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MS_MAX),
        ],
    )


def internal_metadata(token: SecretStr) -> Metadata:
    """Metadata of a call between UsageFlow's own processes."""
    secret = (INTERNAL_TOKEN_HEADER, token.get_secret_value())
    return (secret, *context.outgoing_headers().items())


def forwarded_metadata(token: SecretStr, address: str) -> Metadata:
    """What goes along with a call in the name of a key that may be used only from some networks:
    the token shows that it is a gateway that tells the address.
    """
    return ((INTERNAL_TOKEN_HEADER, token.get_secret_value()), (CLIENT_ADDRESS_HEADER, address))


def api_key_metadata(secret: str) -> Metadata:
    """Metadata of a call in the name of an API key's holder."""
    return ((API_KEY_HEADER, secret), *context.outgoing_headers().items())


def caller_metadata(credential: str) -> Metadata:
    """Metadata of a call in the name of an API key's holder, of a member with a session, or of who
    has a link to the customer portal.

    `credential` is the key, or what Signatures gives for a session or a link. Services look it up.
    """
    header = SESSION_HEADER if credential.startswith(NO_KEY_STARTS) else API_KEY_HEADER
    return ((header, credential), *context.outgoing_headers().items())
