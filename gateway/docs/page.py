"""The OpenAPI document as one HTML page, which needs no script and no address but its own."""

import json
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any, Final, TypeAlias

from gateway.docs.schemas import Field, Schemas

Document: TypeAlias = dict[str, Any]
STYLE_PATH: Final = "/docs/style.css"
# What the introduction says of these is not said again a hundred times.
_OF_EACH_POST: Final = "Idempotency-Key"
_EXPLAINED: Final = "If-Match"
_INTRODUCTION: Final = """
<p>JSON, camelCase, UTF-8. Send your key as <code>x-usageflow-api-key</code>, or as
<code>Authorization: Bearer</code>. Times are RFC 3339 with an offset; quantities and money are
exact decimal strings. Lists take <code>limit</code> and <code>cursor</code>, newest first.</p>
<p>Every answer that is no success is
<code>{"error", "code", "details": [{"field", "message"}], "requestId"}</code> and names all that is
wrong at once. A request may be repeated after a 5xx: nothing is billed twice.</p>
<p>A POST may carry an <code>Idempotency-Key</code> (1-255 printable ASCII characters): the same
request again gets the same answer for at least 24 h and does nothing; another request with the
key is 409. A change may carry <code>If-Match</code> with the <code>ETag</code> of an earlier
answer: 412, and nothing changes, if it has changed since. Beyond the limits that
<code>RateLimit-Policy</code> tells it is 429 with <code>Retry-After</code>.</p>
<p>The same for programs: <a href="/api/openapi.json">OpenAPI 3.1</a>.</p>
"""


def page(document: Document) -> str:
    """The whole page."""
    groups = _groups(document)
    title = escape(document["info"]["title"])
    links = "".join(_link(name, len(operations)) for name, operations in groups.items())
    schemas = Schemas(document["components"]["schemas"])
    sections = "".join(_section(name, found, schemas) for name, found in groups.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title} API</title><link rel="stylesheet" href="{STYLE_PATH}"></head><body>'
        f'<nav aria-label="Resources"><strong>{title} API</strong><ul>{links}</ul></nav>'
        f"<main><h1>{title} API</h1>{_INTRODUCTION}{sections}</main></body></html>"
    )


def _groups(document: Document) -> dict[str, list[tuple[str, str, Document]]]:
    """Path, method and operation of each, by its first tag."""
    groups: dict[str, list[tuple[str, str, Document]]] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            groups.setdefault(operation["tags"][0], []).append((path, method.upper(), operation))
    return groups


def _link(name: str, count: int) -> str:
    return f'<li><a href="#{escape(name)}">{escape(name)}</a> <small>{count}</small></li>'


def _section(name: str, operations: list[tuple[str, str, Document]], schemas: Schemas) -> str:
    shown = "".join(_operation(*operation, schemas) for operation in operations)
    return f'<section id="{escape(name)}"><h2>{escape(name)}</h2>{shown}</section>'


def _operation(path: str, method: str, operation: Document, schemas: Schemas) -> str:
    return (
        f'<article id="{escape(operation["operationId"])}">'
        f'<h3><span class="method">{method}</span> <code>{escape(path)}</code></h3>'
        f"{_paragraphs(operation.get('description', ''))}"
        f"{_parameters(operation.get('parameters', []), schemas)}"
        f"{''.join(_body(operation.get('requestBody', {}), schemas))}"
        f"{''.join(_answers(operation['responses'], schemas))}</article>"
    )


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part)


def _parameters(parameters: list[Document], schemas: Schemas) -> str:
    rows = [
        Field(
            name=each["name"],
            kind=f"{schemas.kind(each.get('schema', {}))}, in {each['in']}",
            required=each.get("required", False),
            description=""
            if each["name"] == _EXPLAINED
            else schemas.description(each.get("schema", {}), each.get("description", "")),
        )
        for each in parameters
        if each["name"] != _OF_EACH_POST
    ]
    return _table("Parameters", rows)


def _body(body: Document, schemas: Schemas) -> Iterator[str]:
    for media_type, content in body.get("content", {}).items():
        yield _table(f"Body: {media_type}", schemas.fields(content["schema"]))
        given = [each["value"] for each in content.get("examples", {}).values()]
        yield _example(given[0] if given else schemas.example(content["schema"]))


def _answers(responses: Document, schemas: Schemas) -> Iterator[str]:
    for status, answer in responses.items():
        # Errors, and beyond the limits, answers are alike everywhere.
        if status in ("default", "429"):
            continue
        content = answer.get("content", {})
        if not content:
            yield f"<h4>{escape(status)}</h4><p>Without a body.</p>"
        for media_type, shown in content.items():
            title = f"{status}: {media_type}"
            yield _table(title, schemas.fields(shown["schema"])) or f"<h4>{escape(title)}</h4>"


def _table(title: str, rows: Iterable[Field]) -> str:
    # Thousands of rows: what HTML lets out at their ends is left out.
    lines = [
        f"<tr><th scope=row><code>{escape(row.name)}</code><td>{escape(row.kind)}"
        f"{', <b>required</b>' if row.required else ''}<td>{escape(row.description)}"
        for row in rows
    ]
    return f"<h4>{escape(title)}</h4><table>{''.join(lines)}</table>" if lines else ""


def _example(value: Any) -> str:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return f"<details><summary>Example</summary><pre>{escape(text)}</pre></details>"
