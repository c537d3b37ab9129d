"""Bodies and query strings become Structs; everything that is wrong is named at once."""

from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import UNSET, Meta, UnsetType

from gateway import fields, query, strict_json
from gateway.fields import JsonObject, Quantity
from services.kit.errors import InvalidArgumentError


class Price(msgspec.Struct, rename="camel"):
    """Something nested."""

    unit_price: Quantity
    model: Literal["PER_UNIT", "PACKAGE"] = "PER_UNIT"


class Thing(msgspec.Struct, rename="camel", kw_only=True):
    """A field of every kind."""

    name: Annotated[str, Meta(min_length=1, max_length=5)]
    count: Annotated[int, Meta(ge=1, le=10)] = 1
    active: bool = False
    starts_at: datetime | None = None
    prices: Annotated[list[Price], Meta(max_length=2)] = []
    quantities: dict[str, Quantity] = {}
    metadata: JsonObject | UnsetType = UNSET
    note: str | UnsetType | None = UNSET


class Asked(msgspec.Struct, rename="camel", kw_only=True):
    """Query parameters of every kind."""

    metric: str
    limit: Annotated[int, Meta(ge=1, le=100, description="described")] = 20
    group_by: Annotated[list[str], Meta(description="described")] = []
    filter: dict[str, str] = {}
    at: datetime | None = None


def read(text: str) -> Thing:
    """The thing that a body spells."""
    return fields.read(strict_json.decode(text.encode()), Thing)


def problems(text: str) -> dict[str, str]:
    """Field to message of everything that is wrong with a body."""
    with pytest.raises(InvalidArgumentError) as caught:
        read(text)
    return {problem.field: problem.message for problem in caught.value.problems}


def query_problems(text: str) -> list[str]:
    """The parameters that are wrong."""
    with pytest.raises(InvalidArgumentError) as caught:
        query.read(text.encode(), Asked)
    return [problem.field for problem in caught.value.problems]


def test_an_empty_quantity_is_none_at_all() -> None:
    assert problems('{"name": "n", "prices": [{"unitPrice": ""}]}') == {
        "prices[0].unitPrice": 'must be a decimal string such as "12.5", or a number'
    }


def test_a_full_body_is_read() -> None:
    thing = read(
        """{"name": "n", "count": 10, "active": true, "startsAt": "2026-01-01T00:00:00+01:00",
            "prices": [{"unitPrice": 0.10, "model": "PACKAGE"}], "quantities": {"A": "1.50"},
            "metadata": {"a": [1.50, {"b": null}]}, "note": null}"""
    )
    assert thing == Thing(
        name="n",
        count=10,
        active=True,
        starts_at=datetime(2025, 12, 31, 23, tzinfo=UTC),
        prices=[Price(Quantity("0.10"), "PACKAGE")],
        quantities={"A": Quantity("1.50")},
        metadata=JsonObject('{"a":[1.50,{"b":null}]}'),
        note=None,
    )


def test_what_is_left_out_keeps_its_default() -> None:
    assert read('{"name": "n"}') == Thing(name="n")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0.1", "0.1"),
        ("0.10", "0.10"),
        ('"0.10"', "0.10"),
        ("12345678901234567890.123456789012", "12345678901234567890.123456789012"),
        ("1e3", "1000"),
        ("1.5E-3", "0.0015"),
        ("1e400", "1e400"),
        ("1e999999999", "1e999999999"),
    ],
)
def test_a_quantity_is_read_as_it_is_written(number: str, text: str) -> None:
    assert read(f'{{"name": "n", "quantities": {{"A": {number}}}}}').quantities == {"A": text}


def test_everything_that_is_wrong_is_named_at_once_with_its_path() -> None:
    body = """{"count": 11, "active": "yes", "startsAt": "today", "metadata": [],
               "prices": [{"unit_price": 1}, {"unitPrice": true, "model": "per_unit"}, 7],
               "quantities": {"A": null}, "note": 1, "nam": "n"}"""
    assert problems(body) == {
        "nam": 'unknown field; did you mean "name"?',
        "name": "is required",
        "count": "must be a whole number from 1 to 10",
        "active": "must be true or false",
        "startsAt": 'must be a time with an offset such as "2026-01-31T09:30:00Z" (RFC 3339)',
        "prices": "must have at most 2 elements",
        "quantities[A]": 'must be a decimal string such as "12.5", or a number',
        "metadata": "must be an object",
        "note": "must be a string",
    }


def test_problems_inside_arrays_name_the_element() -> None:
    body = '{"name": "n", "prices": [{"unit_price": 1}, {"unitPrice": "1", "model": "per_unit"}]}'
    assert problems(body) == {
        "prices[0].unit_price": 'unknown field; did you mean "unitPrice"?',
        "prices[0].unitPrice": "is required",
        "prices[1].model": "must be one of PACKAGE, PER_UNIT",
    }


@pytest.mark.parametrize("count", ["0", "-1", "1.0", "1e1", '"1"', "true", "9" * 99])
def test_a_count_is_a_whole_number_within_its_bounds(count: str) -> None:
    assert list(problems(f'{{"name": "n", "count": {count}}}')) == ["count"]


@pytest.mark.parametrize("body", ["[]", "1", "null", '"x"'])
def test_a_body_is_an_object(body: str) -> None:
    assert problems(body) == {"body": "must be a JSON object"}


def test_a_full_query_string_is_read() -> None:
    asked = query.read(
        b"metric=A%3AB&limit=5&groupBy=customerId,model&filter[region]=eu&filter%5Bmodel%5D=a%2Cb"
        b"&at=2026-01-01T00:00:00%2B01:00",
        Asked,
    )
    assert asked == Asked(
        metric="A:B",
        limit=5,
        group_by=["customerId", "model"],
        filter={"region": "eu", "model": "a,b"},
        at=datetime(2025, 12, 31, 23, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", ["metric"]),
        ("metric=A&metric=B", ["metric"]),
        ("metric=A&limt=5", ["limt"]),
        ("metric=A&limit=0&at=now&x=1", ["x", "limit", "at"]),
        ("metric=A&limit=", ["limit"]),
        ("metric=A&limit=+5", ["limit"]),
        ("metric=A&filter=eu", ["filter"]),
        ("metric=A&filter[a]=1&filter[a]=2", ["filter[a]"]),
        ("metric=A&limit[a]=1", ["limit[a]"]),
        ("metric=%ff", ["query"]),
        ("&".join(f"a{n}=1" for n in range(65)), ["query"]),
    ],
)
def test_a_wrong_query_string_is_refused_by_name(text: str, wrong: list[str]) -> None:
    assert query_problems(text) == wrong


def test_json_is_written_as_it_was_read() -> None:
    text = '{"a":[1.50,-0,1E400,"é\\n",true,false,null,{}],"":""}'
    assert strict_json.encode(strict_json.decode(text.encode())) == text
