"""The chain of documents: no number is missing, and each hash is that of what is stored. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cli.auditing.invoices.content import FIRST_PREVIOUS, chained_hash, content_hash


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a document. `line` from 1; 0: the document as a whole."""

    document: str
    line: int
    what: str
    stored: str
    expected: str


@dataclass(slots=True)
class Chain:
    """Follows documents by series and number."""

    newest: dict[str, int] = field(default_factory=dict)
    _previous: dict[str, bytes] = field(default_factory=dict)
    _series: dict[str, int] = field(default_factory=dict)

    def follow(self, row: Mapping[str, Any]) -> Iterator[Problem]:
        """The next row: a document, its hash, or both."""
        series, sequence = row["series"], int(row["sequence"])
        document, stored = row["document"], row["hash"]
        name = document["number"] if document else f"{series} {sequence}"
        for missing in range(self._series.get(series, 0) + 1, sequence):
            yield Problem(f"{series} {missing}", 0, "number", "nothing", "a document")
            self._previous.pop(series, None)
        self._series[series] = sequence
        if document is None:
            yield Problem(name, 0, "document", "nothing", f"{stored['document_id']}, hashed once")
        if stored is None:
            yield Problem(name, 0, "hash", "nothing", "a hash")
            self._previous.pop(series, None)
            return
        yield from self._check(name, sequence, document, stored)
        self._previous[series] = _bytes(stored["hash"])

    def finish(self) -> Iterator[Problem]:
        """What was numbered and is not there at the end of a series."""
        for series, newest in self.newest.items():
            for missing in range(self._series.get(series, 0) + 1, newest + 1):
                yield Problem(f"{series} {missing}", 0, "number", "nothing", "a document")

    def _check(
        self, name: str, sequence: int, document: Any, stored: Mapping[str, Any]
    ) -> Iterator[Problem]:
        previous, content = _bytes(stored["previous_hash"]), _bytes(stored["content_hash"])
        before = FIRST_PREVIOUS if sequence == 1 else self._previous.get(stored["series"])
        # Of one that is missing, what its successor says is all that is known.
        if before is not None and previous != before:
            yield _differs(name, "hash of the document before", previous, before)
        if document is not None:
            if stored["document_id"] != document["id"]:
                yield Problem(name, 0, "hashed document", stored["document_id"], document["id"])
            if content != (made := content_hash(document)):
                yield _differs(name, "hash of the content", content, made)
        if _bytes(stored["hash"]) != (made := chained_hash(previous, content)):
            yield _differs(name, "hash", _bytes(stored["hash"]), made)


def _differs(name: str, what: str, stored: bytes, expected: bytes) -> Problem:
    return Problem(name, 0, what, stored.hex()[:16], expected.hex()[:16])


def _bytes(text: str) -> bytes:
    r"""As PostgreSQL writes them: "\x" and hexadecimal digits."""
    return bytes.fromhex(text.removeprefix("\\x"))
