"""If-Match and If-None-Match as RFC 9110 spells them."""

import pytest
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from gateway.preconditions import TAGS_MAX, etag, is_known, tags_of
from services.kit.errors import InvalidArgumentError, StaleError
from services.kit.etag import expecting, tagged


def customer(name: str) -> pb.Customer:
    """A customer's message, with its tag."""
    return tagged(pb.Customer(id="u", name=name))


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        (None, []),
        ("*", ["*"]),
        ('"a"', ["a"]),
        (' "a" ,"b"', ["a", "b"]),
        ('"a,b"', ["a,b"]),
        ('W/"a"', ['W/"a"']),
    ],
)
def test_a_header_is_read_as_its_tags(header: str | None, tags: list[str]) -> None:
    assert tags_of(header) == tags


@pytest.mark.parametrize("header", ["", "a", '"a" "b"', '"a",', "'a'", '*,"a"', 'w/"a"'])
def test_what_is_no_list_of_tags_is_refused(header: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        tags_of(header)
    assert [problem.field for problem in caught.value.problems] == ["If-Match"]


def test_the_number_of_tags_is_bounded() -> None:
    assert len(tags_of(",".join(['"a"'] * TAGS_MAX))) == TAGS_MAX
    with pytest.raises(InvalidArgumentError):
        tags_of(",".join(['"a"'] * (TAGS_MAX + 1)))


def test_a_tag_changes_with_anything_that_is_shown_and_only_then() -> None:
    assert customer("Ada").etag == customer("Ada").etag != customer("Bob").etag
    assert tagged(customer("Ada")).etag == customer("Ada").etag
    assert etag(customer("Ada")) == {"ETag": f'"{customer("Ada").etag}"'}
    assert etag(pb.Customer(id="u")) == {}


@pytest.mark.parametrize("if_match", [["*"], ["x", customer("Ada").etag]])
def test_one_tag_of_several_has_to_match(if_match: list[str]) -> None:
    expect = expecting(if_match, customer)
    assert expect is not None
    expect("Ada")


@pytest.mark.parametrize(
    ("if_match", "found"),
    [
        ([customer("Ada").etag], "Bob"),
        ([f'W/"{customer("Ada").etag}"'], "Ada"),
        (["*"], None),
        ([customer("Ada").etag], None),
    ],
)
def test_what_has_changed_is_gone_or_is_only_alike_is_refused(
    if_match: list[str], found: str | None
) -> None:
    expect = expecting(if_match, customer)
    assert expect is not None
    with pytest.raises(StaleError):
        expect(found)


def test_without_tags_nothing_is_expected() -> None:
    assert expecting([], customer) is None


def test_if_none_match_compares_weakly() -> None:
    assert is_known(b'"a"', b'"b", W/"a"')
    assert is_known(b'"a"', b"*")
    assert not is_known(b'"a"', b'"b"')
    assert not is_known(b'"a"', b"a")
