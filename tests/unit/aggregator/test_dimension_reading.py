"""Dimension values out of metadata."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.aggregator.dimensions import canonical, reader


def read(metadata_json: str, *names: str) -> tuple[str, ...]:
    """The values of `names`."""
    read_values = reader(names)
    assert read_values is not None
    return read_values(metadata_json)


def test_a_metric_without_dimensions_reads_nothing() -> None:
    assert reader(()) is None


@pytest.mark.parametrize(
    ("metadata_json", "value"),
    [
        ("", ""),
        ("{}", ""),
        ('{"model": "gpt-4"}', "gpt-4"),
        ('{"other": "x", "model" : "a\\"b\\u00e9\\ud83d\\ude00" }', 'a"b\u00e9\U0001f600'),
        ('{"model": 1.50}', "1.50"),
        ('{"model": 1e400}', "1e400"),
        ('{"model": -0}', "-0"),
        ('{"model": true}', "true"),
        ('{"model": null}', ""),
        ('{"model": ""}', ""),
        ('{"model": "a", "model": "b"}', "b"),
        ('{"model": "a\\u0000b"}', "a\N{REPLACEMENT CHARACTER}b"),
        # Never accepted, and must not hold anything up.
        ('{"model": "a', ""),
        ('["model"]', ""),
        ('{"model": "\\ud800"}', ""),
    ],
)
def test_a_value_is_the_text_that_was_sent(metadata_json: str, value: str) -> None:
    assert read(metadata_json, "model") == (value,)


def test_names_need_not_be_words_of_python() -> None:
    metadata = '{"class": "x", "a-b": 2, "1": "y", "d.e:f": "z"}'
    assert read(metadata, "1", "a-b", "class", "d.e:f", "gone") == ("y", "2", "x", "z", "")


values = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@given(st.dictionaries(st.sampled_from("abcdefgh"), values))
def test_reading_gives_what_was_sent_and_empty_for_the_rest(metadata: dict[str, str]) -> None:
    names = tuple("hgfedcba")
    found = read(json.dumps(metadata), *names)
    assert dict(zip(names, found, strict=True)) == {name: metadata.get(name, "") for name in names}


def test_the_canonical_text_leaves_out_what_is_missing_and_minds_no_order() -> None:
    assert canonical((), ()) == "{}"
    assert canonical(("model",), ("",)) == "{}"
    assert canonical(("b", "a"), ("2", "1")) == canonical(("a", "b"), ("1", "2"))
    assert json.loads(canonical(("b", "a"), ('"', ""))) == {"b": '"'}
