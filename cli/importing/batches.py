"""Lines gathered into the bodies of requests."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from cli.importing.keys import DerivedKeys, with_key
from cli.importing.lines import Line
from cli.importing.source import Source

# The gateway takes 4 MiB; smaller requests make for even progress.
BATCH_BYTES_MAX: Final = 1024 * 1024


@dataclass(slots=True)
class Batch:
    """Lines of one request; those with a problem are not sent."""

    lines: list[Line] = field(default_factory=list)
    refused: list[Line] = field(default_factory=list)
    size_bytes: int = 0
    position_bytes: int = 0
    """How far the file was read when the batch was full."""

    def body(self) -> bytes:
        """NDJSON."""
        return b"\n".join([line.event for line in self.lines])


def batches(
    lines: Iterable[Line], keys: DerivedKeys, source: Source, lines_max: int
) -> Iterator[Batch]:
    """The lines, each with an idempotency key, in the order of the file."""
    batch = Batch()
    for line in lines:
        if line.problem:
            batch.refused.append(line)
        else:
            batch.lines.append(line if line.has_key else _keyed(line, keys))
        batch.size_bytes += len(line.event)
        count = len(batch.lines) + len(batch.refused)
        if count >= lines_max or batch.size_bytes >= BATCH_BYTES_MAX:
            batch.position_bytes = source.position_bytes
            yield batch
            batch = Batch()
    batch.position_bytes = source.position_bytes
    if batch.lines or batch.refused:
        yield batch


def _keyed(line: Line, keys: DerivedKeys) -> Line:
    return line._replace(event=with_key(line.event, keys.key(line.event)), has_key=True)
