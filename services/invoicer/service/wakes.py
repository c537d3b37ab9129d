"""Whom to wake after a commit."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wakes:
    """`relay` sends events; `scheduler` closes periods."""

    relay: Callable[[], None]
    scheduler: Callable[[], None]
