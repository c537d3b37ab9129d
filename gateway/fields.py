"""From JSON (or a query string) to a msgspec Struct, naming everything that is wrong at once.

msgspec's own decoder stops at the first problem and reads numbers as floats; request bodies of
the framework's routes are read here instead, by the same type annotations.
"""

from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import inspect

from gateway import rfc3339, strict_json
from gateway.nearest import unknown
from gateway.strict_json import Json, Number
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.money import DECIMAL_CHARS_MAX

EXPONENT_MAX: Final = 100
# What the services' messages can hold.
INTEGER_MAX: Final = 2**31 - 1
Shape = TypeVar("Shape", bound=msgspec.Struct)


class Quantity(str):
    """An exact decimal as its caller spelt it, sent as a string or as a JSON number."""

    __slots__ = ()


class JsonObject(str):
    """The JSON text of an object for the caller's own use."""

    __slots__ = ()


def read(value: Json, shape: type[Shape], kind: str = "field") -> Shape:
    """The struct that `value` spells; InvalidArgumentError names everything that is wrong.

    `kind` is what its members are called: "field" or "query parameter".
    """
    if not isinstance(value, dict):
        raise InvalidArgumentError([FieldProblem("body", "must be a JSON object")])
    reader = _Reader(kind)
    result = reader.read(_type_of(shape), value, "")
    if reader.problems:
        raise InvalidArgumentError(reader.problems)
    return cast("Shape", result)


@cache
def _type_of(shape: type) -> inspect.Type:
    return inspect.type_info(shape)


class _Reader:
    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.problems: list[FieldProblem] = []

    def refuse(self, path: str, message: str) -> Any:
        """Note a problem; the result is of no use."""
        self.problems.append(FieldProblem(path, message))
        return None

    def read(self, kind: inspect.Type, value: Json, path: str) -> Any:
        """The value; something useless after a problem was noted."""
        if isinstance(kind, inspect.UnionType):
            return self._union(kind, value, path)
        if isinstance(kind, inspect.Metadata):
            return self.read(kind.type, value, path)
        return _READERS[type(kind)](self, kind, value, path)

    def _union(self, kind: inspect.UnionType, value: Json, path: str) -> Any:
        if value is None and any(isinstance(one, inspect.NoneType) for one in kind.types):
            return None
        (only,) = (one for one in kind.types if not isinstance(one, inspect.NoneType))
        return self.read(only, value, path)

    def struct(self, kind: inspect.StructType, value: Json, path: str) -> Any:
        if not isinstance(value, dict):
            return self.refuse(path, "must be an object")
        prefix = f"{path}." if path else ""
        known = {field.encode_name for field in kind.fields}
        for name in value:
            if name not in known:
                self.refuse(prefix + name, unknown(name, known, self._kind))
        members = {}
        for field in kind.fields:
            name = field.encode_name
            if name in value:
                members[field.name] = self.read(field.type, value[name], prefix + name)
            elif field.required:
                self.refuse(prefix + name, "is required")
        return None if self.problems else kind.cls(**members)

    def text(self, kind: inspect.StrType, value: Json, path: str) -> Any:
        if not isinstance(value, str):
            return self.refuse(path, "must be a string")
        shortest, longest = kind.min_length or 0, kind.max_length
        if len(value) < shortest or (longest is not None and len(value) > longest):
            bounds = f"from {shortest} to {longest}" if longest else f"at least {shortest}"
            return self.refuse(path, f"must have {bounds} characters")
        return value

    def boolean(self, _kind: inspect.BoolType, value: Json, path: str) -> Any:
        return value if isinstance(value, bool) else self.refuse(path, "must be true or false")

    def integer(self, kind: inspect.IntType, value: Json, path: str) -> Any:
        text = value.text if isinstance(value, Number) else ""
        lowest, highest = kind.ge or 0, INTEGER_MAX if kind.le is None else kind.le
        if text.isascii() and text.isdecimal() and len(text) <= DECIMAL_CHARS_MAX:
            number = int(text)
            if lowest <= number <= highest:
                return number
        return self.refuse(path, f"must be a whole number from {lowest} to {highest}")

    def time(self, _kind: inspect.DateTimeType, value: Json, path: str) -> Any:
        time = rfc3339.parse(value) if isinstance(value, str) else None
        return time or self.refuse(path, rfc3339.EXPECTED)

    def literal(self, kind: inspect.LiteralType, value: Json, path: str) -> Any:
        if isinstance(value, str) and value in kind.values:
            return value
        return self.refuse(path, f"must be one of {', '.join(map(str, kind.values))}")

    def array(self, kind: inspect.ListType, value: Json, path: str) -> Any:
        if not isinstance(value, list):
            return self.refuse(path, "must be an array")
        if kind.max_length is not None and len(value) > kind.max_length:
            return self.refuse(path, f"must have at most {kind.max_length} elements")
        return [
            self.read(kind.item_type, item, f"{path}[{index}]") for index, item in enumerate(value)
        ]

    def mapping(self, kind: inspect.DictType, value: Json, path: str) -> Any:
        if not isinstance(value, dict):
            return self.refuse(path, "must be an object")
        return {
            name: self.read(kind.value_type, item, f"{path}[{name}]")
            for name, item in value.items()
        }

    def custom(self, kind: inspect.CustomType, value: Json, path: str) -> Any:
        if kind.cls is Quantity:
            return self._quantity(value, path)
        if kind.cls is JsonObject:
            if isinstance(value, dict):
                return JsonObject(strict_json.encode(value))
            return self.refuse(path, "must be an object")
        raise TypeError(kind.cls)

    def _quantity(self, value: Json, path: str) -> Any:
        text = value.text if isinstance(value, Number) else value
        # To the services an empty one means that there is none, which is spelt null here.
        if not isinstance(text, str) or not text:
            return self.refuse(path, 'must be a decimal string such as "12.5", or a number')
        if isinstance(value, Number):
            return Quantity(_without_exponent(text))
        return Quantity(text)


def _without_exponent(text: str) -> str:
    """A JSON number in plain digits; as it was when that would be endless or is no use."""
    if len(text) > DECIMAL_CHARS_MAX or "e" not in text.lower():
        return text
    number = Decimal(text)
    return f"{number:f}" if abs(number.adjusted()) <= EXPONENT_MAX else text


_READERS: Final[dict[type[inspect.Type], Callable[[_Reader, Any, Json, str], Any]]] = {
    inspect.StructType: _Reader.struct,
    inspect.StrType: _Reader.text,
    inspect.BoolType: _Reader.boolean,
    inspect.IntType: _Reader.integer,
    inspect.DateTimeType: _Reader.time,
    inspect.LiteralType: _Reader.literal,
    inspect.ListType: _Reader.array,
    inspect.DictType: _Reader.mapping,
    inspect.CustomType: _Reader.custom,
}
