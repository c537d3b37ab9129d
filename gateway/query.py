"""Query strings: the parameters of a route are the fields of a Struct, as a body's are."""

from functools import cache
from typing import Any, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request
from litestar.di import NamedDependency, Provide
from msgspec import inspect

from gateway import fields
from gateway.strict_json import Json, Number
from services.kit.errors import FieldProblem, InvalidArgumentError

Value = TypeVar("Value")
Shape = TypeVar("Shape", bound=msgspec.Struct)
# What the framework gives to a route that has query(shape) among its dependencies.
Asked: TypeAlias = NamedDependency[Value]
PARAMETERS_MAX = 64
KIND = "query parameter"
_BOOLS = {"true": True, "false": False}


class Nothing(msgspec.Struct):
    """The parameters of a route that takes none."""


def query(shape: type[msgspec.Struct]) -> dict[str, Provide]:
    """The dependencies of a route whose handler takes `asked: shape`."""

    async def provide(request: Request[Any, Any, Any]) -> Any:
        return read(request.scope["query_string"], shape)

    return {"asked": Provide(provide)}


def read(query_string: bytes, shape: type[Shape]) -> Shape:
    """The parameters; InvalidArgumentError names everything that is wrong.

    A list is sent as "a,b", a mapping as "name[key]=value", once for each value when it is one of
    lists.
    """
    kinds = {field.encode_name: kind_of(field) for field in fields_of(shape)}
    values: dict[str, Json] = {}
    problems: list[FieldProblem] = []
    for name, text in _pairs(query_string):
        base, bracket, key = name.partition("[")
        if bracket and key.endswith("]") and isinstance(kinds.get(base), inspect.DictType):
            mapping = values.setdefault(base, {})
            assert isinstance(mapping, dict)
            if not _add(mapping, key[:-1], text, kinds[base]):
                problems.append(FieldProblem(name, "must be given once"))
        elif name in values:
            problems.append(FieldProblem(name, "must be given once"))
        else:
            values[name] = _value(kinds.get(name), text)
    try:
        result = fields.read(values, shape, KIND)
    except InvalidArgumentError as error:
        raise InvalidArgumentError([*problems, *error.problems]) from None
    if problems:
        raise InvalidArgumentError(problems)
    return result


def _add(mapping: dict[str, Json], key: str, text: str, kind: inspect.Type) -> bool:
    """Whether there is room for it: one value, unless it is a mapping to lists."""
    assert isinstance(kind, inspect.DictType)
    if isinstance(kind.value_type, inspect.ListType):
        values = mapping.setdefault(key, [])
        assert isinstance(values, list)
        values.append(text)
        return True
    once = key not in mapping
    mapping[key] = text
    return once


@cache
def fields_of(shape: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    """The fields of a Struct, with their types."""
    info = inspect.type_info(shape)
    assert isinstance(info, inspect.StructType)
    return info.fields


def kind_of(field: inspect.Field) -> inspect.Type:
    """A field's type without its description."""
    kind = field.type
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=PARAMETERS_MAX,
        )
    except ValueError:
        message = f"must have at most {PARAMETERS_MAX} parameters, percent-encoded in UTF-8"
        raise InvalidArgumentError([FieldProblem("query", message)]) from None


def _value(kind: inspect.Type | None, text: str) -> Json:
    if isinstance(kind, inspect.IntType):
        return Number(text)
    if isinstance(kind, inspect.ListType):
        return [item for item in text.split(",") if item]
    if isinstance(kind, inspect.BoolType) and text in _BOOLS:
        return _BOOLS[text]
    return text
