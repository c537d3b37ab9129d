"""Keys for events that have none: running an import again must bill nothing twice.

A key is made of the event's own text and of how many times that text stood in the file before. So
it is the same in every run, also when lines were added, removed, put right or put in another order
meanwhile; and two equal lines of a file are two events. The same line in another file is the same
event, unless the files are given different `--source` names.
"""

import sqlite3
from hashlib import sha256
from typing import Final

_DOMAIN: Final = b"usageflow.import.v1\x00"
_CACHE_KIB: Final = 16 * 1024


class DerivedKeys:
    """Makes keys, in the order of the file.

    It counts how many times each text was seen: in a temporary file, so that memory is bounded.
    """

    def __init__(self, source: str) -> None:
        self._source = sha256(source.encode()).digest()
        self._seen: sqlite3.Connection | None = None

    def key(self, event: bytes) -> bytes:
        """ "import-" and 32 hexadecimal digits."""
        text = sha256(_DOMAIN + self._source + event).digest()
        count = self._count(text)
        return b"import-" + sha256(text + count.to_bytes(8)).hexdigest()[:32].encode()

    def _count(self, text: bytes) -> int:
        """How many times the text was seen, this time included."""
        if self._seen is None:
            self._seen = _open()
        rows = self._seen.execute(
            "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1"
            " RETURNING count",
            (text[:16],),
        )
        ((count,),) = rows.fetchall()
        return int(count)


def with_key(event: bytes, key: bytes) -> bytes:
    """The JSON of an event that has no idempotencyKey, with one."""
    members = event[:-1].rstrip()
    comma = b"" if members == b"{" else b","
    return b'%b%b"idempotencyKey":"%b"}' % (members, comma, key)


def _open() -> sqlite3.Connection:
    """A temporary database, which SQLite deletes, also after a kill."""
    seen = sqlite3.connect("", isolation_level=None)
    seen.execute("PRAGMA journal_mode = OFF")
    seen.execute("PRAGMA synchronous = OFF")
    seen.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    seen.execute("CREATE TABLE seen (text BLOB PRIMARY KEY, count INTEGER) WITHOUT ROWID")
    # One transaction that never ends: nobody needs any of it afterwards.
    seen.execute("BEGIN")
    return seen
