"""The templates, read once; everything that comes from outside is escaped."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.dashboard import assets, text
from gateway.dashboard.navigation import SECTIONS

_FOLDER: Final = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": text.number,
        "compact": text.compact,
        "money": text.money,
        "when": text.when,
        "exactly": text.exactly,
        "to_second": text.to_second,
        "day": text.day,
        "ago": text.ago,
        "words": text.words,
        "field_words": text.field_words,
        "capitalize_first": _capitalize_first,
        "segment": _segment,
        "pair": lambda key: (key, key),
        "with_cursor": _with_cursor,
        "without_cursor": _without_cursor,
    }
    environment.globals |= {
        "asset": assets.url,
        "period": text.period,
        "sections": SECTIONS,
    }
    return environment


def _capitalize_first(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _segment(identifier: str) -> str:
    """An id as one segment of a path."""
    return quote(identifier, safe="")


def _with_cursor(query: Mapping[str, str], cursor: str) -> str:
    """The query string of a list's next page."""
    return urlencode(_filters(query) | {"cursor": cursor})


def _without_cursor(query: Mapping[str, str]) -> str:
    """The query string of a list's first page."""
    return urlencode(_filters(query))


def _filters(query: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in query.items() if name not in ("cursor", "note") and text}


def render(name: str, **context: Any) -> bytes:
    """The template's text with the context's values escaped in it."""
    return _environment().get_template(name).render(context).encode()
