"""Which fault comes when: drawn from the seed alone, before the campaign begins."""

import random
from dataclasses import dataclass
from enum import StrEnum

# Mean time between faults, of which three of five are kills: more than 100 in ten minutes.
GAP_S = 3.1
# Before the first and after the last.
MARGIN_S = 2.0
STOPS_S = (0.3, 1.0, 3.0, 8.0)
# A service gives up on a transaction after 10 s; then its own may be under way still.
LONG_STOP_S = 14.0

SERVICES = ("gateway", "ingest", "ingest-2", "aggregator", "aggregator-2")
OTHERS = ("accounts", "invoicer", "notifier")
SERVERS = ("postgres", "nats")
PROXIED = ("gateway", "ingest", "postgres", "nats")


class Kind(StrEnum):
    """What may happen."""

    KILL = "kill"  # kill -9 of a process, of PostgreSQL's or NATS's
    KILL_BACKEND = "kill backend"  # kill -9 of one of PostgreSQL's processes
    WIPE = "wipe"  # kill -9 of NATS, and its store is deleted
    STOP = "stop"  # SIGSTOP, SIGCONT after `seconds`
    CUT = "cut"  # every connection through a proxy ends
    LOSE_ANSWER = "lose answer"  # the same, with the next answer on its way
    REDELIVER = "redeliver"  # old batches come again, in any order, as new messages


KILLS = frozenset({Kind.KILL, Kind.KILL_BACKEND, Kind.WIPE})


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault: when (since the beginning), what, to whom, for how long.

    `number` picks among things whose count is known only then.
    """

    at_s: float
    kind: Kind
    target: str
    seconds: float = 0.0
    number: int = 0

    def __str__(self) -> str:
        lasting = f" for {self.seconds} s" if self.seconds else ""
        return f"{self.at_s:6.1f} s {self.kind} {self.target}{lasting}"


def plan(seed: int, duration_s: float, gap_s: float = GAP_S) -> list[Planned]:
    """Faults for a campaign of `duration_s` seconds, in order of time.

    Decks of all kinds are shuffled one after the other, so that each kind of fault comes to each
    of its targets again and again, in ever other company.
    """
    rng = random.Random(f"{seed}/schedule")
    lasting_s = max(duration_s - 2 * MARGIN_S, 0.0)
    faults = max(int(lasting_s / gap_s), 1)
    # Never long without one, and often two at once.
    instants = [MARGIN_S + lasting_s * (number + rng.random()) / faults for number in range(faults)]
    drawn: list[tuple[Kind, str]] = []
    while len(drawn) < faults:
        deck = _deck(rng)
        rng.shuffle(deck)
        drawn += deck
    return [
        Planned(at_s, kind, target, _seconds(kind, rng), rng.randrange(1_000_000))
        for at_s, (kind, target) in zip(instants, drawn, strict=False)
    ]


def _deck(rng: random.Random) -> list[tuple[Kind, str]]:
    """30 faults, 18 of them kills."""
    kills = [(Kind.KILL, name) for name in (*SERVICES * 2, *OTHERS, *SERVERS)]
    kills += [(Kind.KILL_BACKEND, "postgres")] * 2 + [(Kind.WIPE, "nats")]
    stoppable = (*SERVICES, *SERVERS, *SERVERS, *OTHERS)
    stops = [(Kind.STOP, name) for name in rng.sample(stoppable, 5)]
    cuts = [(rng.choice((Kind.CUT, Kind.LOSE_ANSWER)), name) for name in PROXIED]
    return [*kills, *stops, *cuts, *[(Kind.REDELIVER, "nats")] * 3]


def _seconds(kind: Kind, rng: random.Random) -> float:
    if kind is not Kind.STOP:
        return 0.0
    return LONG_STOP_S if rng.random() < 0.1 else rng.choice(STOPS_S)
