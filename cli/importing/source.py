"""The file of an import: opened, unpacked, and how much of it was read."""

import gzip
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from cli.importing.errors import ImportStoppedError

STDIN: Final = "-"
_NDJSON_SUFFIXES: Final = (".ndjson", ".jsonl")


class Format(StrEnum):
    """How events are written in a file."""

    NDJSON = "ndjson"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Source:
    """An open file. `stream` is its unpacked content, `raw` what stands on disk."""

    stream: BinaryIO
    raw: BinaryIO
    size_bytes: int | None
    """Of the file as it stands on disk; None: nobody knows (a pipe)."""

    @property
    def position_bytes(self) -> int:
        """How much of `size_bytes` was read; 0 for a pipe."""
        return self.raw.tell() if self.size_bytes is not None else 0


def format_of(path: str) -> Format:
    """By the name's end, .gz aside; standard input is NDJSON. ImportStoppedError: neither."""
    if path == STDIN:
        return Format.NDJSON
    name = path.lower().removesuffix(".gz")
    if name.endswith(_NDJSON_SUFFIXES):
        return Format.NDJSON
    if name.endswith(".csv"):
        return Format.CSV
    raise ImportStoppedError(
        f"{path}: its name ends in none of .ndjson, .jsonl, .csv (or these with .gz);"
        " say what it is with --format"
    )


@contextmanager
def opened(path: str) -> Iterator[Source]:
    """The file, unpacked when its name ends in .gz; ImportStoppedError when it can't be read."""
    if path == STDIN:
        # Not sys.stdin, which Python closes at exit, and never closed: both would wait for the
        # thread that waits for more.
        pipe = open(0, "rb", closefd=False)  # noqa: SIM115
        yield Source(pipe, pipe, None)
        return
    try:
        raw = Path(path).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ImportStoppedError(f"{path}: {error.strerror}") from error
    with raw:
        regular = os.path.isfile(path)
        size_bytes = os.fstat(raw.fileno()).st_size if regular else None
        if path.lower().endswith(".gz"):
            unpacked = io.BufferedReader(gzip.GzipFile(fileobj=raw))
            yield Source(unpacked, raw, size_bytes)
        else:
            yield Source(raw, raw, size_bytes)
