"""Event types, and the patterns by which endpoints subscribe to them. Pure.

A pattern is a type, or has `*` in place of segments: "invoice.*" takes every type of invoices,
"*.created" whatever came into being, "*" all. A star at the end stands for one segment or more.
"""

from collections.abc import Sequence

TEST_EVENT_TYPE = "webhook.test"
DISABLED_EVENT_TYPE = "webhook.disabled"
EVENT_TYPES = (
    "invoice.created",
    "invoice.paid",
    "invoice.failed",
    "invoice.voided",
    "credit_note.created",
    "credits.granted",
    "credits.expired",
    "credits.low_balance",
    "payment.succeeded",
    "payment.failed",
    "payment.retry_scheduled",
    "subscription.created",
    "subscription.changed",
    "subscription.suspended",
    "subscription.cancelled",
    "usage.threshold_reached",
    DISABLED_EVENT_TYPE,
    TEST_EVENT_TYPE,
)
PATTERNS_MAX = 50  # of one endpoint


def takes(patterns: Sequence[str], event_type: str) -> bool:
    """Whether one of the patterns takes the type; no patterns take all."""
    return not patterns or any(matches(pattern, event_type) for pattern in patterns)


def matches(pattern: str, event_type: str) -> bool:
    """Whether the pattern takes the type."""
    if pattern in (event_type, "*"):
        return True
    wanted, segments = pattern.split("."), event_type.split(".")
    if wanted[-1] == "*" and len(segments) > len(wanted):
        segments = segments[: len(wanted)]
    return len(wanted) == len(segments) and all(
        want in ("*", segment) for want, segment in zip(wanted, segments, strict=True)
    )


def unknown_patterns(patterns: Sequence[str]) -> list[str]:
    """The patterns that take none of the known types, sorted."""
    return sorted(
        pattern
        for pattern in set(patterns)
        if not any(matches(pattern, event_type) for event_type in EVENT_TYPES)
    )


def known_types(patterns: Sequence[str]) -> list[str]:
    """The known types that the patterns take; no patterns take all."""
    return [event_type for event_type in EVENT_TYPES if takes(patterns, event_type)]
