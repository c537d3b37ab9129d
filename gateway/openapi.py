"""The OpenAPI 3.1 document: the framework's, with what it does not know added.

That is: query parameters (Structs, see query.py), the hot path's two routes, the error body, and
how to authenticate. It is made once (docs/description.py).
"""

from typing import Any, Final, TypeAlias

import msgspec
from litestar import Litestar
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition
from msgspec import inspect

from gateway.batch_answer import BatchAnswer
from gateway.batch_body import EVENTS_MAX
from gateway.docs import examples
from gateway.errors import ErrorBody
from gateway.event import KEY_HEADER
from gateway.fields import JsonObject, Quantity
from gateway.preconditions import IF_MATCH
from gateway.query import fields_of, kind_of
from services.kit import events, usage_token

# What is asked by POST and changes nothing: the question is too long for a URL.
CALCULATORS: Final = ("quotePlan", "previewInvoice", "simulatePlan")
VERSION: Final = "0.1.0"
Document: TypeAlias = dict[str, Any]
_SCHEMAS: Final = "#/components/schemas/{name}"
_ERROR: Final = {"$ref": "#/components/responses/Error"}
_RATE_LIMITED: Final = {"$ref": "#/components/responses/RateLimited"}
_LIMITS: Final[Document] = {
    "RateLimit-Policy": {"$ref": "#/components/headers/RateLimit-Policy"},
    "RateLimit": {"$ref": "#/components/headers/RateLimit"},
}
_LIMIT_HEADERS: Final[Document] = {
    "RateLimit-Policy": {
        "schema": {"type": "string"},
        "description": "What may be sent in w seconds (q), by the organization's keys and, if it "
        'has limits of its own, by this key: "organization-requests";q=50000;w=1',
    },
    "RateLimit": {
        "schema": {"type": "string"},
        "description": "What will be used up first: how much is left (r), and in how many seconds "
        'nothing of it is used any more (t): "organization-requests";r=49999;t=1',
    },
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds"},
}
_DECIMAL: Final = r"^-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"


class ExactTypes(OpenAPISchemaPlugin):
    """Tells the framework what our own field types look like in JSON."""

    @staticmethod
    def is_plugin_supported_type(value: Any) -> bool:
        """The types of fields.py, and JSON that is passed on as it is."""
        return value in (Quantity, JsonObject, msgspec.Raw)

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: Any) -> Schema:
        """A quantity is a decimal string or a number; the others are objects."""
        if field_definition.annotation is Quantity:
            return Schema(
                type=[OpenAPIType.STRING, OpenAPIType.NUMBER],
                pattern=_DECIMAL,
                description="Exact decimal; a JSON number is read as it is written",
            )
        return Schema(type=OpenAPIType.OBJECT)


def document(app: Litestar) -> bytes:
    """The document as JSON."""
    schema = app.openapi_schema.to_schema()
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            _complete(operation, _parameters_of(app, path, method))
        _tell_tags(item)
        if "post" in item and item["post"]["operationId"] not in CALCULATORS:
            _tell_key(item["post"])
    schemas = schema["components"]["schemas"]
    _, components = msgspec.json.schema_components((BatchAnswer, ErrorBody), ref_template=_SCHEMAS)
    added = components | {
        "NewEvent": _event(),
        "NewBatchedEvent": _batched_event(),
        "TrackAnswer": _TRACK_ANSWER,
    }
    if taken := schemas.keys() & added.keys():
        raise ValueError(f"two schemas of one name: {taken}")
    schemas |= added
    for name in _request_schemas(schema):
        schemas[name]["additionalProperties"] = False
    schema["components"]["headers"] = _LIMIT_HEADERS
    schema["components"]["responses"] = {
        "Error": _json("Anything that is no success", "ErrorBody", _LIMITS),
        "RateLimited": _json(
            "A limit of the organization or of the key is reached; nothing was done",
            "ErrorBody",
            _LIMITS | {"Retry-After": {"$ref": "#/components/headers/Retry-After"}},
        ),
    }
    schema["components"]["securitySchemes"] = _SECURITY_SCHEMES
    schema["security"] = [{name: []} for name in _SECURITY_SCHEMES]
    schema["paths"] = {**_hot_paths(), **schema["paths"]}
    for path, item in schema["paths"].items():
        for operation in item.values():
            _tell_limits(operation)
            operation["tags"] = [_resource(path)]
            if body := examples.BODIES.get(operation["operationId"]):
                content = operation["requestBody"]["content"]["application/json"]
                content["examples"] = {"usual": {"value": body}}
    return msgspec.json.encode(schema, enc_hook=str)


def _resource(path: str) -> str:
    """What comes after /api: "usage" for /api/usage.csv, too."""
    return path.split("/")[2].partition(".")[0]


def operation_id(handler: Any, _method: Any, _path: Any) -> str:
    """For example "listMetrics"."""
    first, *rest = str(handler.handler_name).split("_")
    return first + "".join(word.capitalize() for word in rest)


def _request_schemas(schema: Document) -> set[str]:
    """The schemas that request bodies are made of: in them unknown fields are refused."""
    found: set[str] = set()
    bodies = [
        operation["requestBody"]
        for item in schema["paths"].values()
        for operation in item.values()
        if "requestBody" in operation
    ]
    while bodies:
        for name in _referenced(bodies.pop()) - found:
            found.add(name)
            bodies.append(schema["components"]["schemas"][name])
    return found


def _referenced(part: Any) -> set[str]:
    if isinstance(part, dict):
        here = {part["$ref"].rpartition("/")[2]} if "$ref" in part else set()
        return here.union(*map(_referenced, part.values()))
    return set().union(*map(_referenced, part)) if isinstance(part, list) else set()


def _parameters_of(app: Litestar, path: str, method: str) -> dict[str, FieldDefinition]:
    """What the handler of a route takes, by name."""
    for route in app.routes:
        handlers = getattr(route, "route_handler_map", {})
        if _documented(route.path_format) == path and method.upper() in handlers:
            handler, _model = handlers[method.upper()]
            return dict(handler.parsed_fn_signature.parameters)
    raise LookupError(path)


def _documented(path_format: str) -> str:
    return path_format or "/"


def _complete(operation: Document, taken: dict[str, FieldDefinition]) -> None:
    if "asked" in taken:
        asked = taken["asked"].annotation
        operation["parameters"] = operation.get("parameters", []) + _parameters(asked)
    if "data" in taken:
        operation["requestBody"]["required"] = not taken["data"].has_default
    operation["responses"].pop("400", None)
    operation["responses"]["default"] = _ERROR


def _tell_key(operation: Document) -> None:
    """What may be sent with each POST that makes or changes something, and what it does then."""
    parameters = operation.setdefault("parameters", [])
    if all(parameter["name"] != KEY_HEADER for parameter in parameters):
        parameters.append(_KEY | {"description": _KEY_DESCRIPTION})
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            answer["headers"] = answer.get("headers", {}) | _REPLAYED


def _tell_limits(operation: Document) -> None:
    """Answers tell them; beyond them it is 429."""
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            answer["headers"] = answer.get("headers", {}) | _LIMITS
    operation["responses"]["429"] = _RATE_LIMITED


def _tell_tags(item: Document) -> None:
    """A path whose resource may be changed If-Match answers with its ETag, to a GET as well."""
    named = [
        parameter["name"]
        for operation in item.values()
        for parameter in operation.get("parameters", [])
    ]
    if IF_MATCH not in named:
        return
    for operation in item.values():
        if operation["operationId"].startswith("list"):
            continue
        for status, answer in operation["responses"].items():
            if status in ("200", "201"):
                answer["headers"] = answer.get("headers", {}) | {"ETag": _ETAG}


def _parameters(asked: type[msgspec.Struct]) -> list[Document]:
    (_,), components = msgspec.json.schema_components((asked,), ref_template=_SCHEMAS)
    properties = components[asked.__name__]["properties"]
    return [_parameter(field, properties[field.encode_name]) for field in fields_of(asked)]


def _parameter(field: inspect.Field, schema: Document) -> Document:
    kind = kind_of(field)
    # What may be null in the Struct may be left out of the query.
    if "anyOf" in schema:
        (only,) = (one for one in schema.pop("anyOf") if one != {"type": "null"})
        schema |= only
    if schema.get("default") is None:
        schema.pop("default", None)
    parameter = {
        "name": field.encode_name,
        "in": "query",
        "required": field.required,
        "schema": schema,
    }
    if description := schema.pop("description", None):
        parameter["description"] = description
    if isinstance(kind, inspect.DictType):
        parameter |= {"style": "deepObject", "explode": True}
    elif isinstance(kind, inspect.ListType):
        parameter |= {"style": "form", "explode": False}
    elif isinstance(kind, inspect.UnionType) and isinstance(kind.types[0], inspect.DateTimeType):
        schema["format"] = "date-time"
    return parameter


def _json(description: str, schema: str, headers: Document | None = None) -> Document:
    content = {"application/json": {"schema": {"$ref": _SCHEMAS.format(name=schema)}}}
    answer: Document = {"description": description, "content": content}
    if headers:
        answer["headers"] = headers
    return answer


_SECURITY_SCHEMES: Final[Document] = {
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-usageflow-api-key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}
_KEY_DESCRIPTION: Final = (
    "1-255 printable ASCII characters, bare or quoted. The same request again gets the same answer "
    "for at least 24 h and does nothing; another request with the key: 409 idempotency_conflict"
)
_REPLAYED: Final[Document] = {
    "Idempotent-Replayed": {
        "schema": {"const": "true"},
        "description": "The answer of an earlier request with the same Idempotency-Key",
    }
}
_ETAG: Final[Document] = {
    "schema": {"type": "string"},
    "description": "Changes with the answer; for If-Match, and for If-None-Match (304)",
}
_TRACK_ANSWER: Final[Document] = {
    "type": "object",
    "required": ["success", "eventId"],
    "properties": {
        "success": {"const": True},
        "eventId": {"type": "string", "examples": ["evt_0f8c1c5e7a1b4f0d9e2a3b4c5d6e7f80"]},
    },
}


def _event() -> Document:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["metric", "amount"],
        "properties": {
            "metric": {
                "type": "string",
                "pattern": f"^[A-Za-z0-9_.:\\-]{{1,{events.METRIC_CHARS_MAX}}}$",
            },
            "amount": {
                "type": ["string", "number"],
                "pattern": _DECIMAL,
                "description": (
                    f"Decimal >= 0, at most {events.AMOUNT_DIGITS_MAX} digits, at most "
                    f"{events.AMOUNT_SCALE_MAX} after the point, read exactly as written"
                ),
            },
            "customerId": {
                "type": "string",
                "minLength": 1,
                "maxLength": events.CUSTOMER_ID_CHARS_MAX,
            },
            "timestamp": {
                "type": "string",
                "format": "date-time",
                "description": (
                    f"When it happened: from {events.PAST_DAYS_DEFAULT} days ago "
                    f"(up to {events.PAST_DAYS_MAX} by the organization's eventPastDays) to "
                    f"{events.FUTURE_MINUTES_MAX} minutes ahead; left out: now. In test mode: "
                    "ahead of the furthest test clock, and now by that of the customer"
                ),
            },
            "metadata": {
                "type": "object",
                "maxProperties": events.METADATA_KEYS_MAX,
                "additionalProperties": {"type": ["string", "number", "boolean"]},
                "description": f"At most {events.METADATA_BYTES_MAX} bytes of JSON",
            },
        },
    }


def _batched_event() -> Document:
    event = _event()
    event["properties"]["idempotencyKey"] = _key_schema()
    return event


def _key_schema() -> Document:
    return {"type": "string", "minLength": 1, "maxLength": events.IDEMPOTENCY_KEY_CHARS_MAX}


_KEY: Final[Document] = {
    "name": KEY_HEADER,
    "in": "header",
    "required": False,
    "schema": _key_schema(),
    "description": "Printable ASCII, bare or quoted; recommended",
}


def _hot_paths() -> Document:
    return {
        "/api/track": {"post": _track_operation()},
        "/api/track/batch": {"post": _batch_operation()},
    }


_USAGE_TOKEN: Final[Document] = {
    "usage-token": {
        "schema": {"type": "string", "maxLength": usage_token.CHARS_MAX},
        "description": "Opaque; GET /api/usage with it counts what this answer acknowledges",
    }
}
_GZIP: Final[Document] = {
    "name": "Content-Encoding",
    "in": "header",
    "required": False,
    "schema": {"enum": ["gzip", "x-gzip", "identity", ""]},
    "description": "The body may be compressed; its limits are those of the inflated body",
}


def _track_operation() -> Document:
    replayed = {
        "Idempotent-Replayed": {
            "schema": {"const": "true"},
            "description": "The event was stored before; nothing new is stored",
        }
    }
    return {
        "operationId": "track",
        "summary": "Record one usage event",
        "description": (
            "Answers once the event is durably stored. The same Idempotency-Key with the same "
            "content gives the same answer and stores nothing; with other content: 409."
        ),
        "parameters": [
            _KEY,
            _GZIP,
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _SCHEMAS.format(name="NewEvent")}}},
        },
        "responses": {
            "200": _json("Stored", "TrackAnswer", replayed | _USAGE_TOKEN),
            "default": _ERROR,
        },
    }


def _batch_operation() -> Document:
    batched = {"$ref": _SCHEMAS.format(name="NewBatchedEvent")}
    batch = {
        "type": "object",
        "additionalProperties": False,
        "required": ["events"],
        "properties": {
            "events": {"type": "array", "minItems": 1, "maxItems": EVENTS_MAX, "items": batched}
        },
    }
    return {
        "operationId": "trackBatch",
        "summary": "Record many usage events",
        "description": "Every event has its own result; a bad one never sinks the others.",
        "parameters": [_GZIP],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": batch},
                "application/x-ndjson": {"schema": batched},
            },
        },
        "responses": {
            "200": _json("A result for each event", "BatchAnswer", _USAGE_TOKEN),
            "default": _ERROR,
        },
    }
