"""Every route of the framework: which RPC it becomes, and what its answer becomes."""

from typing import Any

import httpx
import pytest
from usageflow.aggregator.v1 import aggregator_pb2 as aggregator
from usageflow.aggregator.v1 import quotas_pb2 as quotas
from usageflow.invoicer.v1 import invoicer_pb2 as invoicer

from services.kit import clock, errors, permissions, usage_token
from services.kit.errors import FieldProblem
from services.kit.ids import new_uuid
from tests.integration.gateway import (
    account_routes,
    billing_routes,
    change_routes,
    clock_routes,
    document_routes,
    event_routes,
    member_routes,
    portal_routes,
    prepaid_routes,
    quota_routes,
    revenue_routes,
    settings_routes,
    term_routes,
    usage_routes,
    webhook_routes,
)
from tests.integration.gateway.conftest import ORGANIZATION_ID, Gateway, World, as_member
from tests.integration.gateway.route_cases import Case

CASES = [
    *account_routes.CASES,
    *billing_routes.CASES,
    *change_routes.CASES,
    *clock_routes.CASES,
    *document_routes.CASES,
    *event_routes.CASES,
    *member_routes.CASES,
    *prepaid_routes.CASES,
    *quota_routes.CASES,
    *settings_routes.CASES,
    *portal_routes.CASES,
    *revenue_routes.CASES,
    *term_routes.CASES,
    *usage_routes.CASES,
    *webhook_routes.CASES,
]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


def sent_body(body: Any) -> dict[str, Any]:
    """httpx's arguments for a body: JSON text as it is, anything else as JSON."""
    if isinstance(body, str):
        return {"content": body, "headers": {"Content-Type": "application/json"}}
    return {} if body is None else {"json": body}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path[:40]}")
async def test_a_route_becomes_its_rpc(http: httpx.AsyncClient, world: World, case: Case) -> None:
    world.answers = {case.rpc: case.answer, **case.others}
    if case.member:
        as_member(http, world)
    answer = await http.request(case.method, case.path, **sent_body(case.body))
    assert answer.status_code == case.status, answer.text
    assert world.requests[-1] == (case.rpc, case.request)
    assert world.callers[-1].organization_id == ORGANIZATION_ID
    assert (answer.json() if answer.content else None) == case.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path[:40]}")
async def test_every_route_refuses_unknown_parameters_and_fields(
    http: httpx.AsyncClient, world: World, case: Case
) -> None:
    path = case.path + ("&" if "?" in case.path else "?") + "surprise=1"
    answer = await http.request(case.method, path, **sent_body(case.body))
    assert [detail["field"] for detail in answer.json()["details"]] == ["surprise"]
    if case.method in ("POST", "PATCH", "PUT"):
        body = {"surprise": 1} | (case.body if isinstance(case.body, dict) else {})
        answer = await http.request(case.method, case.path, json=body)
        assert answer.status_code == 400
        assert "surprise" in [detail["field"] for detail in answer.json()["details"]]
    assert world.requests == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path[:40]}")
async def test_every_route_is_documented_as_it_is(http: httpx.AsyncClient, case: Case) -> None:
    document = (await http.get("/api/openapi.json")).json()
    asked = case.path.split("?")[0].split("/")
    operation = next(
        item[case.method.lower()]
        for path, item in sorted(document["paths"].items(), key=lambda found: "{" in found[0])
        if case.method.lower() in item and _fits(path.split("/"), asked)
    )
    assert operation["responses"]["default"] == {"$ref": "#/components/responses/Error"}
    known = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
    given = {pair.partition("=")[0].partition("[")[0] for pair in _query(case.path)}
    assert given <= known
    answer = operation["responses"][str(case.status)]
    if case.expected is not None:
        _assert_fits(document, answer["content"]["application/json"]["schema"], case.expected)
    if isinstance(case.body, dict) and case.body:
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        _assert_fits(document, body, case.body)
        with pytest.raises(AssertionError):
            _assert_fits(document, body, case.body | {"surprise": 1})


def _query(path: str) -> list[str]:
    return path.partition("?")[2].split("&") if "?" in path else []


_JSON_TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def _assert_fits(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """The part of JSON Schema that our document uses."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        schema = document["components"]["schemas"][name]
    if "oneOf" in schema:
        for one in schema["oneOf"]:
            if not _is_one(_types(one), value):
                continue
            return _assert_fits(document, one, value)
        raise AssertionError((schema, value))
    assert _is_one(_types(schema), value), (schema, value)
    assert value in schema.get("enum", [value])
    if isinstance(value, dict):
        assert set(schema.get("required", [])) <= value.keys()
        extra = schema.get("additionalProperties", {})
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, extra)
            assert inner is not False, name
            if inner:
                _assert_fits(document, inner, item)
    if isinstance(value, list):
        for item in value:
            _assert_fits(document, schema["items"], item)
    return None


def _types(schema: dict[str, Any]) -> list[str]:
    named = schema.get("type", "object")
    return named if isinstance(named, list) else [named]


def _is_one(types: list[str], value: Any) -> bool:
    return any(isinstance(value, _JSON_TYPES[one]) for one in types)  # type: ignore[arg-type]


def _fits(template: list[str], path: list[str]) -> bool:
    return len(template) == len(path) and all(
        one == other or one.startswith("{") for one, other in zip(template, path, strict=True)
    )


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (
            errors.InvalidArgumentError([FieldProblem("key", "is wrong")]),
            400,
            "invalid_argument",
        ),
        (errors.NotFoundError("No such metric"), 404, "not_found"),
        (errors.ConflictError("It is taken"), 409, "conflict"),
        (errors.PreconditionError("It is void", reason="invoice_void"), 409, "invoice_void"),
        (errors.PermissionDeniedError("No", reason="missing_scope"), 403, "missing_scope"),
        (errors.OverloadedError("Later", retry_after_s=2.5), 429, "overloaded"),
        (errors.UnavailableError("10.0.0.1 refused", retry_after_s=2.5), 503, "unavailable"),
        (RuntimeError("a secret"), 500, "internal"),
    ],
)
async def test_a_services_error_becomes_its_status(
    http: httpx.AsyncClient, world: World, error: Exception, status: int, code: str
) -> None:
    world.answers["GetMetric"] = error
    answer = await http.get("/api/metrics/A")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["requestId"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text
    assert "10.0.0.1" not in answer.text
    if status in (429, 503):
        assert answer.headers["retry-after"] == "3"


async def test_a_services_field_problems_are_passed_on(
    http: httpx.AsyncClient, world: World
) -> None:
    problems = [FieldProblem("key", "is wrong"), FieldProblem("unit", "is too long")]
    world.answers["CreateMetric"] = errors.InvalidArgumentError(problems)
    answer = await http.post("/api/metrics", json={"key": "A"})
    assert answer.json()["details"] == [
        {"field": "key", "message": "is wrong"},
        {"field": "unit", "message": "is too long"},
    ]


async def test_wrong_settings_are_named_all_at_once_with_what_is_allowed(
    http: httpx.AsyncClient, world: World
) -> None:
    settings = {"eventPastDays": 401, "eventRetentionDays": "90", "eventPastDay": 40}
    answer = await http.patch("/api/organization", json={"nam": "", "settings": settings})
    assert answer.status_code == 400
    told = {detail["field"]: detail["message"] for detail in answer.json()["details"]}
    assert told == {
        "nam": 'unknown field; did you mean "name"?',
        "settings.eventPastDay": 'unknown field; did you mean "eventPastDays"?',
        "settings.eventPastDays": "must be a whole number from 35 to 400",
        "settings.eventRetentionDays": "must be a whole number from 90 to 36500",
    }
    assert world.requests == []


async def test_a_change_of_an_unknown_customer_makes_none(
    http: httpx.AsyncClient, world: World
) -> None:
    world.answers["GetCustomer"] = errors.NotFoundError("No such customer")
    answer = await http.patch("/api/customers/nobody", json={"name": "N"})
    assert answer.status_code == 404
    assert [rpc for rpc, _request in world.requests] == ["GetCustomer"]


async def test_the_last_page_has_no_next_cursor(http: httpx.AsyncClient, world: World) -> None:
    world.answers["ListMetrics"] = aggregator.ListMetricsResponse()
    assert (await http.get("/api/metrics")).json() == {"data": [], "nextCursor": None}


async def test_the_usage_token_may_be_sent_as_a_header(
    http: httpx.AsyncClient, world: World
) -> None:
    world.answers = {"QueryUsage": aggregator.QueryUsageResponse(metric="A")}
    tokens = [usage_token.encode([new_uuid()], clock.now()) for _ in range(2)]
    for path, headers, sent in (
        ("/api/usage?metric=A", {}, ""),
        ("/api/usage?metric=A", {"usage-token": tokens[0]}, tokens[0]),
        (f"/api/usage?metric=A&usageToken={tokens[0]}", {"usage-token": tokens[0]}, tokens[0]),
        (
            f"/api/usage?metric=A&usageToken={tokens[0]}",
            {"usage-token": tokens[1]},
            usage_token.join(tokens),
        ),
    ):
        answer = await http.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        [(_method, request)] = world.requests[-1:]
        assert isinstance(request, aggregator.QueryUsageRequest)
        assert request.usage_token == sent


async def test_usage_that_is_not_there_in_time_is_503_and_when_to_try_again(
    http: httpx.AsyncClient, world: World
) -> None:
    world.answers = {"QueryUsage": errors.NotYetError("not counted yet", retry_after_s=1)}
    answer = await http.get("/api/usage?metric=A", headers={"usage-token": "abc"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    # Nobody waited a second time.
    assert len(world.requests) == 1


@pytest.mark.parametrize("header", ["order-1", '"order-1"'])
async def test_a_subscriptions_idempotency_key_is_passed_on_and_a_replay_is_told(
    http: httpx.AsyncClient, world: World, header: str
) -> None:
    answer = billing_routes.SUBSCRIPTION
    body = {"customerId": "user_1", "planId": "plan_1"}
    for replayed in (False, True):
        world.answers["CreateSubscription"] = invoicer.CreateSubscriptionResponse(
            subscription=answer, replayed=replayed
        )
        got = await http.post("/api/subscriptions", json=body, headers={"Idempotency-Key": header})
        assert got.status_code == 201
        assert got.json() == billing_routes.SUBSCRIPTION_JSON
        assert got.headers.get("idempotent-replayed") == ("true" if replayed else None)
        _, request = world.requests[-1]
        assert isinstance(request, invoicer.CreateSubscriptionRequest)
        assert request.idempotency_key == "order-1"


async def test_an_empty_idempotency_key_is_refused(http: httpx.AsyncClient, world: World) -> None:
    body = {"customerId": "user_1", "planId": "plan_1"}
    answer = await http.post("/api/subscriptions", json=body, headers={"Idempotency-Key": '""'})
    assert [detail["field"] for detail in answer.json()["details"]] == ["Idempotency-Key"]
    assert world.requests == []


async def test_if_match_is_passed_on_and_the_tag_is_told(
    http: httpx.AsyncClient, world: World
) -> None:
    world.answers["SetQuota"] = quotas.SetQuotaResponse(
        quota=quotas.Quota(
            id="quota_1",
            metric="A",
            etag="new",
            period=quotas.QUOTA_PERIOD_MONTH,
            enforcement=quotas.QUOTA_ENFORCEMENT_HARD,
        )
    )
    body = {"metric": "A", "limit": "1"}
    answer = await http.post("/api/quotas", json=body, headers={"If-Match": '"a", W/"b"'})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"new"'), answer.text
    _, request = world.requests[-1]
    assert isinstance(request, quotas.SetQuotaRequest)
    assert list(request.if_match) == ["a", 'W/"b"']
    answer = await http.post("/api/quotas", json=body, headers={"If-Match": "a"})
    assert [detail["field"] for detail in answer.json()["details"]] == ["If-Match"]


async def test_a_change_of_nothing_is_412_too_when_it_has_changed(
    http: httpx.AsyncClient, world: World
) -> None:
    stored = invoicer.Customer(id="u", etag="now")
    world.answers["GetCustomer"] = invoicer.GetCustomerResponse(customer=stored)
    for tag, status in (('"now"', 200), ("*", 200), ('"old"', 412)):
        answer = await http.patch("/api/customers/u", json={}, headers={"If-Match": tag})
        assert answer.status_code == status


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.method} {case.path[:40]}")
async def test_the_idempotency_key_of_every_post_reaches_its_rpc_and_is_documented(
    http: httpx.AsyncClient, world: World, case: Case
) -> None:
    """What is under a key is done once by kit, for every RPC that does not only read."""
    document = (await http.get("/api/openapi.json")).json()
    asked = case.path.split("?")[0].split("/")
    operation = next(
        item[case.method.lower()]
        for path, item in sorted(document["paths"].items(), key=lambda found: "{" in found[0])
        if case.method.lower() in item and _fits(path.split("/"), asked)
    )
    if "Idempotency-Key" not in {each["name"] for each in operation.get("parameters", [])}:
        assert case.method != "POST" or permissions.only_reads(case.rpc)
        return
    assert case.method == "POST"
    world.answers = {case.rpc: case.answer, **case.others}
    if case.member:
        as_member(http, world)
    arguments = sent_body(case.body)
    headers = arguments.pop("headers", {}) | {"Idempotency-Key": '"order 1"'}
    answer = await http.post(case.path, headers=headers, **arguments)
    assert answer.status_code == case.status, answer.text
    assert set(world.idempotency_keys) == {"order 1"}


async def test_a_key_that_is_none_is_refused_before_anything_is_asked(
    http: httpx.AsyncClient, world: World
) -> None:
    for sent in ([b""], ["é".encode()], [b"a", b"a"]):
        headers = httpx.Headers([(b"Idempotency-Key", key) for key in sent])
        answer = await http.post("/api/metrics", json={"key": "A"}, headers=headers)
        assert [detail["field"] for detail in answer.json()["details"]] == ["Idempotency-Key"]
    assert world.requests == []
