"""Seeded faults: deliberate bugs, off unless a test switches one on.

A fault campaign (tests/chaos) that never finds anything proves something only when its checker
is seen to find these. Each is one line at the place where it breaks an invariant.
"""

import os
from collections.abc import Mapping
from enum import StrEnum

import structlog

log = structlog.get_logger()

NAME = "USAGEFLOW_TEST_FAULT"
ALLOWED = "USAGEFLOW_TEST_FAULTS_ALLOWED"


class Fault(StrEnum):
    """What may be switched on, one at a time."""

    # ingest answers before the transaction that stores the events.
    ACK_BEFORE_COMMIT = "ack_before_commit"
    # aggregator takes every batch for a new one.
    INBOX_OFF = "inbox_off"
    # An outbox confirms messages that their consumer lacks.
    DROPPED_OUTBOX_ROW = "dropped_outbox_row"
    # ingest takes another content under a known key for a duplicate.
    IGNORED_CONFLICT = "ignored_conflict"


class FaultNotAllowedError(Exception):
    """A fault is asked for that does not exist, or without the second switch."""


_seeded: Fault | None = None


def read_fault(environ: Mapping[str, str]) -> Fault | None:
    """The fault that is asked for; FaultNotAllowedError unless a second variable allows it."""
    name = environ.get(NAME, "")
    if not name:
        return None
    if environ.get(ALLOWED) != "1":
        raise FaultNotAllowedError(f"{NAME} is for tests only: it needs {ALLOWED}=1 as well")
    try:
        return Fault(name)
    except ValueError:
        raise FaultNotAllowedError(f"{NAME} is one of {', '.join(Fault)}; not {name!r}") from None


def install(environ: Mapping[str, str] = os.environ) -> None:
    """Switch on what the environment asks for; every process does so before anything else."""
    global _seeded
    _seeded = read_fault(environ)
    if _seeded is not None:
        log.error("SEEDED_FAULT_ON", fault=_seeded, meaning="this process LOSES OR DOUBLES EVENTS")


def seeded(fault: Fault) -> bool:
    """Whether this fault is switched on."""
    return _seeded is fault
