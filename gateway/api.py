"""The framework's app: every route but the hot path."""

from typing import Any
from urllib.parse import quote, unquote

from litestar import Litestar, Request, Response, get
from litestar.di import Provide
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.openapi.config import OpenAPIConfig

from gateway import fields, openapi, strict_json
from gateway import query as query_string
from gateway.calls import Calls, Services
from gateway.docs.description import description_of
from gateway.errors import (
    HttpError,
    body_too_large,
    method_not_allowed,
    not_found,
    to_http,
    unsupported_media_type,
)
from gateway.forms import FORM, FORM_TYPE, is_form
from gateway.idempotency import key_of_request
from gateway.inflate import unsupported_encoding
from gateway.routes import (
    accounts,
    audit,
    billing_settings,
    budgets,
    charges,
    credit_notes,
    customers,
    discounts,
    docs,
    documents,
    events,
    invitation,
    invoices,
    members,
    metrics,
    payments,
    people,
    plans,
    portal_links,
    prepaid,
    quotas,
    revenue,
    sign_in,
    subscription_changes,
    subscriptions,
    taxes,
    test_clocks,
    usage,
    webhooks,
)
from gateway.strict_json import JsonError
from gateway.track import BODY_BYTES_MAX
from gateway.usage_live import LiveStreams
from gateway.wire import is_json
from services.kit import context
from services.kit.errors import FieldProblem, InvalidArgumentError

_RESOURCES = (
    accounts,
    audit,
    billing_settings,
    budgets,
    charges,
    credit_notes,
    customers,
    discounts,
    docs,
    documents,
    events,
    invitation,
    invoices,
    members,
    metrics,
    payments,
    people,
    plans,
    prepaid,
    portal_links,
    quotas,
    revenue,
    sign_in,
    subscription_changes,
    subscriptions,
    taxes,
    test_clocks,
    usage,
    webhooks,
)


class ApiRequest(Request[Any, Any, Any]):
    """A request whose JSON is read strictly, into the Struct that its handler takes."""

    async def json(self) -> Any:
        """The handler's `data`; InvalidArgumentError names everything that is wrong."""
        data = self.route_handler.parsed_data_field
        assert data is not None
        return fields.read(_decoded(await self.body()), data.annotation)


def build(services: Services, live: LiveStreams) -> Litestar:
    """The app, which calls `services` in the name of the request's API key or member.

    `live` holds the streams that it opens, for whoever has to end them.
    """

    async def provide_calls(request: Request[Any, Any, Any]) -> Calls:
        calls = Calls(
            services,
            request.scope["credential"],  # type: ignore[typeddict-item]
            key_of_request(request),
            request.scope.get("forwarded", ()),  # type: ignore[arg-type]
        )
        request.scope["calls"] = calls  # type: ignore[typeddict-unknown-key]
        return calls

    async def provide_live() -> LiveStreams:
        return live

    return Litestar(
        [get_openapi, *(handler for resource in _RESOURCES for handler in resource.HANDLERS)],
        request_class=ApiRequest,
        request_max_body_size=BODY_BYTES_MAX,
        before_request=_check_request,
        dependencies={"calls": Provide(provide_calls), "live": Provide(provide_live)},
        exception_handlers={HTTPException: _answer_error, Exception: _answer_error},
        plugins=[openapi.ExactTypes()],
        openapi_config=OpenAPIConfig(
            title="UsageFlow",
            version=openapi.VERSION,
            use_handler_docstrings=True,
            operation_id_creator=openapi.operation_id,
        ),
        logging_config=None,
        pdb_on_exception=False,
    )


@get("/api/openapi.json", include_in_schema=False)
async def get_openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """This API's OpenAPI 3.1 document."""
    description = await description_of(request.app)
    return Response(description.document, media_type="application/json")


def routing_path(raw_path: bytes) -> str:
    """The path with each segment percent-encoded in one way: an id may contain "/"."""
    path = raw_path.decode("ascii")
    if "%" not in path:
        return path
    try:
        return "/".join(
            quote(unquote(segment, errors="strict"), safe="") for segment in path.split("/")
        )
    except UnicodeDecodeError:
        raise not_found() from None


async def _check_request(request: Request[Any, Any, Any]) -> Response[None] | None:
    """What holds for all routes, before their parameters and bodies are read."""
    if request.method == "OPTIONS":
        return Response(None, status_code=204, headers={"allow": _methods(request)})
    parameters = request.scope["path_params"]
    for name, value in parameters.items():
        parameters[name] = unquote(value)
    handler = request.route_handler
    known = handler.parsed_fn_signature.parameters
    if "asked" not in known and request.scope["query_string"]:
        query_string.read(request.scope["query_string"], query_string.Nothing)
    if request.method == "GET":
        return None
    if handler.opt.get(FORM):
        if not is_form(request.headers.get("content-type", "").encode("latin-1")):
            raise unsupported_media_type(FORM_TYPE)
        return None
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise unsupported_encoding("Only track requests may be compressed", "identity")
    body = await request.body()
    required = "data" in known and not known["data"].has_default
    if (body or required) and not is_json(
        request.headers.get("content-type", "").encode("latin-1")
    ):
        raise unsupported_media_type("application/json")
    if "data" not in known and body:
        fields.read(_decoded(body), query_string.Nothing)
    elif not body and required:
        raise InvalidArgumentError([FieldProblem("body", "must be a JSON object")])
    return None


def _methods(request: Request[Any, Any, Any]) -> str:
    """What the path takes: the framework's own answer forgets some when it has several handlers."""
    path = request.scope["path_template"]
    routes = [route for route in request.app.routes if (route.path_format or "/") == path]
    return ", ".join(
        sorted({method for route in routes for method in getattr(route, "methods", ())})
    )


def _decoded(body: bytes) -> strict_json.Json:
    try:
        return strict_json.decode(body)
    except JsonError as error:
        raise InvalidArgumentError([FieldProblem("body", str(error))]) from None


def _answer_error(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    answer = to_http(framework_error(error))
    return Response(
        answer.body(context.request_id.get()),
        status_code=answer.status,
        media_type="application/json",
        headers=answer.headers,
    )


def framework_error(error: Exception) -> Exception:
    """The framework's errors as ours, others as they are."""
    match error:
        case NotFoundException():
            return not_found()
        case MethodNotAllowedException():
            return method_not_allowed((error.headers or {}).get("allow", ""))
        case RequestEntityTooLarge():
            return body_too_large(BODY_BYTES_MAX)
        case HTTPException() if error.status_code < 500:
            return HttpError(error.status_code, "invalid_argument", error.detail)
        case _:
            return error
