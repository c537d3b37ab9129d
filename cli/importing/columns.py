"""What the columns of a CSV mean, and the event that a row is."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cli.importing.errors import ImportStoppedError

FIELDS: Final = ("metric", "amount", "customerId", "timestamp", "idempotencyKey")
REQUIRED: Final = ("metric", "amount")
METADATA: Final = "metadata."


@dataclass(frozen=True, slots=True)
class Columns:
    """`targets` says for each column of `header` which field it is; "": it is left out."""

    header: tuple[str, ...]
    targets: tuple[str, ...]

    def event(self, row: Sequence[str]) -> dict[str, str | dict[str, str]]:
        """The event of a row that is as long as the header. An empty cell is a field left out."""
        event: dict[str, str | dict[str, str]] = {}
        metadata: dict[str, str] = {}
        for target, value in zip(self.targets, row, strict=True):
            if not value or not target:
                continue
            if target.startswith(METADATA):
                metadata[target.removeprefix(METADATA)] = value
            else:
                event[target] = value
        if metadata:
            event["metadata"] = metadata
        return event


def read_header(header: Sequence[str], column_map: Mapping[str, str]) -> Columns:
    """The columns; ImportStoppedError names everything that is wrong with them.

    `column_map`: column to field, "" leaves a column out.
    """
    if not header:
        raise ImportStoppedError("the file is empty: a CSV begins with a line of column names")
    names = [name.strip() for name in header]
    targets = tuple(column_map.get(name, name) for name in names)
    problems = [
        f"--column-map {name}={target}: the file has no such column{_meant(name, names)}"
        for name, target in column_map.items()
        if name not in names
    ]
    for name, target in zip(names, targets, strict=True):
        if target and not is_field(target):
            problems.append(f'column "{name}"{_unknown(name, target)}')
    twice = sorted({each for each in targets if each and targets.count(each) > 1})
    problems += [f"more than one column is {target}" for target in twice]
    problems += [f"no column is {field}" for field in REQUIRED if field not in targets]
    if problems:
        known = f"a column is one of {', '.join(FIELDS)}, or {METADATA}<name>"
        raise ImportStoppedError("; ".join([*problems, known]))
    return Columns(tuple(names), targets)


def is_field(name: str) -> bool:
    """Whether a column may be this field."""
    return name in FIELDS or (name.startswith(METADATA) and name != METADATA)


def _unknown(name: str, target: str) -> str:
    mapped = "" if name == target else f" (mapped to {target})"
    meant = nearest(target, FIELDS)
    option = f"--column-map '{name}={meant or METADATA + name}'"
    guess = f"did you mean {meant}? Then " if meant else "use "
    return f"{mapped} is unknown: {guess}{option}; to leave it out, --column-map '{name}='"


def _meant(name: str, known: Sequence[str]) -> str:
    meant = nearest(name, known)
    return f"; did you mean {meant}?" if meant else ""


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name that was probably meant, whatever its case and underscores; or None."""

    def plain(text: str) -> str:
        return text.replace("_", "").replace("-", "").replace(" ", "").lower()

    by_plain = {plain(each): each for each in known}
    found = difflib.get_close_matches(plain(name), list(by_plain), n=1)
    return by_plain[found[0]] if found else None
