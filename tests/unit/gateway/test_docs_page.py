"""The reference for people: complete, and harmless whatever the document says."""

from typing import Any

from gateway.docs.page import page
from gateway.docs.schemas import Schemas

PLAN = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 200},
        "lines": {"type": "array", "items": {"$ref": "#/components/schemas/Line"}},
        "ends": {"oneOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
    },
}
LINE = {
    "type": "object",
    "properties": {
        "price": {"type": ["string", "number"], "pattern": r"^-?[0-9]+$", "description": "Exact"},
        "model": {"type": "string", "enum": ["FLAT", "TIERS"]},
    },
}
SCHEMAS = Schemas({"Plan": PLAN, "Line": LINE})


def document(**operation: Any) -> dict[str, Any]:
    """A document of one operation."""
    made = {"tags": ["plans"], "operationId": "createPlan", "responses": {}, **operation}
    return {
        "info": {"title": "UsageFlow"},
        "paths": {"/api/plans": {"post": made}},
        "components": {"schemas": {"Plan": PLAN, "Line": LINE}},
    }


def test_fields_of_inner_objects_are_named_by_their_path() -> None:
    rows = list(SCHEMAS.fields({"$ref": "#/components/schemas/Plan"}))
    assert [(row.name, row.kind, row.required) for row in rows] == [
        ("name", "string", True),
        ("lines", "array of object", False),
        ("lines[].price", "string or number", False),
        ("lines[].model", "FLAT | TIERS", False),
        ("ends", "string (date-time) or null", False),
    ]
    assert [row.description for row in rows[:3]] == ["At most 200 characters", "", "Exact"]


def test_an_example_fits_its_schema() -> None:
    example = SCHEMAS.example({"$ref": "#/components/schemas/Plan"})
    assert example == {"name": "text", "lines": [{}], "ends": "2026-01-01T00:00:00Z"}
    assert SCHEMAS.example(LINE) == {"price": "12.5", "model": "FLAT"}


def test_a_schema_that_holds_itself_has_an_end() -> None:
    loop: dict[str, Any] = {"type": "object", "properties": {}, "required": ["again"]}
    loop["properties"]["again"] = {"type": "array", "items": loop}
    rows = list(Schemas({}).fields(loop))
    assert 1 < len(rows) < 10
    assert Schemas({}).example(loop)


def test_each_operation_is_shown_with_its_parameters_body_and_answers() -> None:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Plan"}}}
    html = page(
        document(
            description="Make a plan.\n\nIt is kept.",
            parameters=[{"name": "limit", "in": "query", "schema": {"type": "integer"}}],
            requestBody={"content": content},
            responses={"201": {"content": content}, "204": {}, "default": {}},
        )
    )
    for shown in ("<p>Make a plan.</p><p>It is kept.</p>", "integer, in query", "Without a body"):
        assert shown in html
    assert '<a href="#plans">plans</a>' in html
    assert html.count("lines[].price") == 2


def test_nothing_of_the_document_becomes_markup() -> None:
    html = page(document(description="<script>alert(1)</script>", tags=['"><b>']))
    assert "<script" not in html
    assert "<b>" not in html.replace("<b>required</b>", "")


def test_the_page_needs_no_script_no_inline_style_and_no_other_address() -> None:
    html = page(document())
    for refused in ("<script", "style=", "http://", "https://", "onclick", "javascript:"):
        assert refused not in html
