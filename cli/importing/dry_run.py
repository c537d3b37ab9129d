"""What is wrong with events, as far as it can be told without sending them."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from cli.importing.batches import Batch
from cli.importing.columns import FIELDS, nearest
from cli.importing.report import REJECTED
from cli.importing.sender import Answer, Result
from services.kit import clock
from services.kit.events import MICROS_PER_DAY, PAST_DAYS_MAX, check_event

_KNOWN: Final = (*FIELDS, "metadata")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode


class DryRun:
    """A Sender that sends nothing. ACCEPTED means: nothing wrong was found.

    Times are held against 400 days, the most that an organization may allow; keys that were used
    for other events can't be told.
    """

    async def send(self, batch: Batch) -> Answer:
        """The answer, a result for each line."""
        results = []
        for index, line in enumerate(batch.lines):
            problems = "; ".join(event_problems(line.event))
            status = REJECTED if problems else "ACCEPTED"
            results.append(Result(index, status, problems or None))
        rejected = sum(result.status == REJECTED for result in results)
        return Answer(len(results) - rejected, 0, 0, rejected, results)


def event_problems(event: bytes) -> list[str]:
    """What is wrong with an event, "field: what is allowed" each."""
    members = _decode_members(event)
    problems = [_unknown(name) for name in members if name not in _KNOWN]
    problems += [f"{name}: is required" for name in ("metric", "amount") if name not in members]
    texts = {}
    for name in FIELDS:
        raw = bytes(members.get(name, b'""'))
        number = name == "amount" and not raw.startswith(b'"')
        try:
            texts[name] = raw.decode() if number else _decode_text(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            problems.append(f"{name}: must be a string")
    if problems:
        return problems
    micros = None
    if texts["timestamp"]:
        micros = _micros(texts["timestamp"])
        if micros is None:
            return ["timestamp: must be an RFC 3339 time with an offset"]
    found = check_event(
        texts["metric"],
        texts["amount"],
        texts["customerId"],
        micros,
        bytes(members.get("metadata", b"")).decode("utf-8", "replace"),
        texts["idempotencyKey"],
        (clock.now() - _EPOCH) // timedelta(microseconds=1),
        PAST_DAYS_MAX * MICROS_PER_DAY,
    )
    return [f"{problem.field}: {problem.message}" for problem in found]


def _unknown(name: str) -> str:
    meant = nearest(name, _KNOWN)
    return f"{name}: unknown field" + (f"; did you mean {meant}?" if meant else "")


def _micros(text: str) -> int | None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (time - _EPOCH) // timedelta(microseconds=1) if time.tzinfo else None
