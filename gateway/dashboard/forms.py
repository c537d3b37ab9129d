"""HTML forms: from pairs of names and texts to the Structs that JSON bodies are read into.

A field is named by its path in the Struct, `metrics[0].tiers[1].upTo`, which is also how problems
are named; so each problem is shown beside its field. What is left empty counts as left out. Names
that begin with "_", or have a part that does, are the page's own and no part of the Struct.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request
from litestar.datastructures import UploadFile
from msgspec import inspect

from gateway import fields
from gateway.errors import HttpError, from_domain
from gateway.forms import pairs_of
from gateway.query import fields_of, kind_of
from gateway.strict_json import Json, Number
from services.kit.errors import DomainError, FieldProblem, InvalidArgumentError, StaleError

Shape = TypeVar("Shape", bound=msgspec.Struct)

FIELDS_MAX: Final = 2_000
INDEX_MAX: Final = 1_000
CSRF: Final = "_csrf"
# The tags of what the page showed when it was made (If-Match).
ETAG: Final = "_etag"
CHANGED: Final = (
    "Somebody has changed this since you opened the page, so nothing was saved. "
    "Here is what it is now."
)
# What nobody has filled in themselves.
_HIDDEN: Final = frozenset({CSRF, ETAG, "_key", "_keyHint"})
_INDEX = re.compile(r"\[(\d{1,4})\]")
_STEP = re.compile(r"\.?([A-Za-z0-9_]+)|\[([^\[\]]+)\]")


class Form(Mapping[str, str]):
    """What was sent, or what a page shows at first; with what is wrong with it."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.problems: dict[str, str] = {}
        self.error = ""
        # Of a form that came too late: what it would have set, by name.
        self.entered: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self._pairs: list[tuple[str, str]] = []
        self._values: dict[str, str] = {}
        self._set(pairs)

    def fill(self, body: bytes) -> None:
        """Take a body of application/x-www-form-urlencoded; InvalidArgumentError."""
        self._set(_without_gaps(pairs_of(body, FIELDS_MAX)))

    async def fill_parts(self, request: Request[Any, Any, Any]) -> None:
        """Take a body of multipart/form-data, in which files are; HTTPException."""
        pairs = []
        for name, part in (await request.form()).multi_items():
            if isinstance(part, UploadFile):
                self.files[name] = await part.read()
            else:
                pairs.append((name, str(part)))
        self._set(_without_gaps(pairs))

    def _set(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = [(name, text.replace("\r\n", "\n").strip()) for name, text in pairs]
        self._values = dict(self._pairs)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def pairs(self) -> Sequence[tuple[str, str]]:
        """All names and texts, as they were sent."""
        return self._pairs

    @staticmethod
    def row_of(prefix: str, name: str) -> int | None:
        """n of a name `prefix[n]...`; None for other names."""
        match = _INDEX.match(name, len(prefix)) if name.startswith(f"{prefix}[") else None
        return int(match[1]) if match else None

    def drop(self, prefix: str, rows: Collection[int]) -> None:
        """Take rows `prefix[n]...` out; the others are numbered 0, 1, 2 .. again."""
        kept = [pair for pair in self._pairs if self.row_of(prefix, pair[0]) not in rows]
        self._set(_without_gaps(kept))

    def part(self, prefix: str) -> "Form":
        """The fields `prefix.name`, by their names alone: one of several forms of a page."""
        start = f"{prefix}."
        own = [(name, text) for name, text in self._pairs if name.startswith(start)]
        return Form((name.removeprefix(start), text) for name, text in own)

    def all(self, name: str) -> list[str]:
        """Every value of a name that may be sent several times."""
        return [text for given, text in self._pairs if given == name and text]

    def indexes(self, prefix: str) -> list[int]:
        """Which numbers n there are in names `prefix[n]...`, ascending."""
        rows = {self.row_of(prefix, name) for name in self._values}
        return sorted(row for row in rows if row is not None)

    def read(self, shape: type[Shape], **more: Json) -> Shape:
        """The Struct that was filled in, with `more` of it by JSON name.

        InvalidArgumentError names everything that is wrong.
        """
        tree: dict[str, Any] = {}
        for name, text in self._pairs:
            if text and "._" not in f".{name}":
                _put(tree, _path(name), text)
        document = _typed(tree, inspect.type_info(shape))
        assert isinstance(document, dict)
        return fields.read(document | more, shape)

    @property
    def if_match(self) -> list[str]:
        """The tag of what the page showed, for the request that changes it."""
        return self.all(ETAG)

    def seen(self, etag: str) -> list[str]:
        """The same where a page may show several things, or none: `etag` is the tag of what is to
        be changed as it is now, "": there is nothing. StaleError: the page did not show that.
        """
        if etag and etag not in self.if_match:
            raise StaleError(CHANGED)
        return [etag] if etag else []

    def outdated(self, now: "Form", *, secret: Collection[str] = ()) -> "Form":
        """Of a form that came too late: `now`, which shows what is there, with what would have
        been set; what is `secret` is not shown.
        """
        names = dict.fromkeys([*now, *self])
        now.error = CHANGED
        now.entered = {
            name: ", ".join(self.all(name))
            for name in names
            if name not in _HIDDEN
            and "._" not in name
            and name not in secret
            and self.all(name) != now.all(name)
        }
        return now

    def refuse(self, error: DomainError, prefix: str = "") -> int:
        """Note what is wrong, for the page that shows the form again: its status. `prefix` is that
        of part().

        An error that isn't about what was filled in, or shown, is raised again.
        """
        answer = from_domain(error)
        if isinstance(error, StaleError):
            self.error = CHANGED
            return answer.status
        if answer.status not in (400, 404, 409, 429):
            raise error
        start = f"{prefix}." if prefix else ""
        self.problems = {start + problem.field: problem.message for problem in answer.problems}
        unknown = [
            f"{field}: {message}" for field, message in self.problems.items() if field not in self
        ]
        if isinstance(error, InvalidArgumentError) and self.problems:
            self.error = "Check the marked fields"
            if unknown:
                self.error = f"Something is missing or wrong: {'; '.join(unknown)}"
        else:
            self.error = answer.message
        return 400


def problem(field: str, message: str) -> InvalidArgumentError:
    """The error of one field."""
    return InvalidArgumentError([FieldProblem(field, message)])


def local_time(text: str, field: str, zone: tzinfo) -> datetime:
    """The instant that an <input type="datetime-local"> says; InvalidArgumentError."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M").replace(tzinfo=zone)
    except ValueError:
        raise problem(field, "must be a date and a time of day") from None


def split(text: str) -> list[str]:
    """What is separated by commas or line breaks."""
    return [part for piece in re.split(r"[,\n]", text) if (part := piece.strip())]


def _without_gaps(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same with rows that were left empty taken out and the others numbered 0, 1, 2 ..

    Problems are named by the numbers in the list that is read, which has no empty rows.
    """
    filled: dict[str, set[int]] = {}
    for name, text in pairs:
        for match in _INDEX.finditer(name):
            found = filled.setdefault(name[: match.start()], set())
            if text.strip():
                found.add(int(match[1]))
    numbers = {
        prefix: {row: new for new, row in enumerate(sorted(rows))}
        for prefix, rows in filled.items()
    }
    kept: list[tuple[str, str]] = []
    for name, text in pairs:
        steps = [(match, numbers[name[: match.start()]]) for match in _INDEX.finditer(name)]
        if all(int(match[1]) in rows for match, rows in steps):
            for match, rows in reversed(steps):
                row = rows[int(match[1])]
                name = f"{name[: match.start()]}[{row}]{name[match.end() :]}"
            kept.append((name, text))
    return kept


def _path(name: str) -> list[str | int]:
    steps: list[str | int] = []
    position = 0
    while position < len(name):
        match = _STEP.match(name, position)
        if match is None:
            raise HttpError(400, "invalid_form", "The form can't be read")
        if match[1] is not None:
            steps.append(match[1])
        else:
            steps.append(int(match[2]) if match[2].isdecimal() else match[2])
        position = match.end()
    return steps


def _put(tree: dict[Any, Any], path: Sequence[str | int], text: str) -> None:
    for step in path[:-1]:
        tree = tree.setdefault(step, {})
        if not isinstance(tree, dict):
            raise HttpError(400, "invalid_form", "The form can't be read")
    last = path[-1]
    if last in tree:
        before = tree[last]
        tree[last] = [*before, text] if isinstance(before, list) else [before, text]
    else:
        tree[last] = text


def _typed(value: Any, kind: inspect.Type) -> Json:
    """The JSON that the form's texts stand for, by what the Struct expects."""
    if isinstance(kind, inspect.Metadata):
        return _typed(value, kind.type)
    if isinstance(kind, inspect.UnionType):
        known = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return _typed(value, known[0])
    if isinstance(kind, inspect.StructType) and isinstance(value, dict):
        kinds = {field.encode_name: kind_of(field) for field in fields_of(kind.cls)}
        return {
            str(name): _typed(item, kinds[name]) if name in kinds else _plain(item)
            for name, item in value.items()
        }
    if isinstance(kind, inspect.ListType):
        return _list(value, kind.item_type)
    if isinstance(kind, inspect.DictType) and isinstance(value, dict):
        return {str(name): _typed(item, kind.value_type) for name, item in value.items()}
    if isinstance(kind, inspect.IntType) and isinstance(value, str):
        return Number(value)
    if isinstance(kind, inspect.BoolType) and isinstance(value, str):
        return {"true": True, "on": True, "false": False}.get(value, value)
    return _plain(value)


def _list(value: Any, kind: inspect.Type) -> Json:
    if isinstance(value, dict):
        # Numbered rows; those that were left empty in between are left out.
        rows = sorted((index, item) for index, item in value.items() if isinstance(index, int))
        return [_typed(item, kind) for _index, item in rows[:INDEX_MAX]]
    if isinstance(value, list):
        return [_typed(item, kind) for item in value]
    return [_typed(item, kind) for item in split(value)]


def _plain(value: Any) -> Json:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value  # type: ignore[no-any-return]
