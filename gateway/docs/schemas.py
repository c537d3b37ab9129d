"""JSON schemas as rows of a table, and as examples."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Schema: TypeAlias = dict[str, Any]
DEPTH_MAX: Final = 4
_EXAMPLES: Final = {"integer": 1, "boolean": True, "number": 1, "object": {}, "null": None}
_FORMATS: Final = {"date-time": "2026-01-01T00:00:00Z"}


@dataclass(frozen=True, slots=True)
class Field:
    """One member of an object, or one parameter."""

    name: str
    kind: str
    required: bool
    description: str


class Schemas:
    """The schemas of one document."""

    def __init__(self, named: dict[str, Schema]) -> None:
        self._named = named

    def fields(self, schema: Schema, prefix: str = "", depth: int = 0) -> Iterator[Field]:
        """The members of an object, those of inner objects behind it: "lines[].amount"."""
        schema = self._plain(schema)
        required = schema.get("required", [])
        for name, inner in schema.get("properties", {}).items():
            path = prefix + name
            described = self.description(self._plain(inner), inner.get("description", ""))
            yield Field(path, self.kind(inner), name in required, described)
            if depth < DEPTH_MAX:
                yield from self._inner(inner, path, depth)

    def _inner(self, schema: Schema, path: str, depth: int) -> Iterator[Field]:
        schema = self._plain(schema)
        if "items" in schema:
            yield from self._inner(schema["items"], f"{path}[]", depth)
        elif "properties" in schema:
            yield from self.fields(schema, f"{path}.", depth + 1)

    def kind(self, schema: Schema) -> str:
        """For example "string (date-time) or null"."""
        if choices := schema.get("oneOf") or schema.get("anyOf"):
            return " or ".join(self.kind(each) for each in choices)
        schema = self._plain(schema)
        if "const" in schema:
            return json.dumps(schema["const"])
        if "enum" in schema:
            return " | ".join(str(each) for each in schema["enum"])
        kinds = schema.get("type", "any")
        kind = kinds if isinstance(kinds, str) else " or ".join(kinds)
        if kind == "array":
            return f"array of {self.kind(schema.get('items', {}))}"
        return f"{kind} ({schema['format']})" if "format" in schema else kind

    def description(self, schema: Schema, own: str) -> str:
        """The words of whoever refers to the schema or its own, and its bounds."""
        words = [own or schema.get("description", "")]
        lowest, highest = schema.get("minimum"), schema.get("maximum")
        if lowest is not None and highest is not None:
            words.append(f"From {lowest} to {highest}")
        if "maxLength" in schema:
            words.append(f"At most {schema['maxLength']} characters")
        if schema.get("default") not in (None, "", [], {}):
            words.append(f"Default: {schema['default']}")
        return ". ".join(word for word in words if word)

    def example(self, schema: Schema, depth: int = 0) -> Any:
        """A value that shows the shape; optional members of inner objects are left out."""
        schema = self._plain(schema)
        if "examples" in schema:
            return schema["examples"][0]
        if "const" in schema or "enum" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        if schema.get("default") not in (None, "", [], {}):
            return schema["default"]
        if "properties" in schema:
            required = schema.get("required", [])
            return {
                name: self.example(inner, depth + 1)
                for name, inner in schema["properties"].items()
                if depth == 0 or name in required
            }
        kinds = schema.get("type", "string")
        kind = kinds if isinstance(kinds, str) else kinds[0]
        if kind == "array":
            return [self.example(schema.get("items", {}), depth + 1)] if depth < DEPTH_MAX else []
        if kind == "string":
            return _FORMATS.get(schema.get("format", ""), _text_of(schema))
        return _EXAMPLES[kind]

    def _plain(self, schema: Schema) -> Schema:
        """What a reference, or the one choice besides null, stands for."""
        for choice in schema.get("oneOf", []) or schema.get("anyOf", []):
            if choice.get("type") != "null":
                return self._plain(choice)
        if "$ref" in schema:
            return self._plain(self._named[schema["$ref"].rpartition("/")[2]])
        return schema


def _text_of(schema: Schema) -> str:
    """A decimal where one is wanted; any text elsewhere."""
    return "12.5" if schema.get("pattern", "").startswith("^-?[0-9]") else "text"
