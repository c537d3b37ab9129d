"""POST /api/track and /api/track/batch, from a client's side."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from usageflow.ingest.v1 import ingest_pb2

from services.kit import clock, usage_token
from services.kit.errors import InvalidArgumentError, OverloadedError, UnavailableError
from services.kit.ids import new_uuid
from tests.integration.gateway.conftest import USAGE_TOKEN, Gateway, World

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVENT = {"metric": "API_CALL", "amount": 1, "customerId": "user_123"}


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """One gateway for all tests here."""
    return shared_gateway.forgetful()


async def test_an_event_is_stored_and_answered_with_its_id(
    http: httpx.AsyncClient, world: World
) -> None:
    answer = await http.post("/api/track", json=EVENT, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "eventId": answer.json()["eventId"]}
    assert answer.json()["eventId"].startswith("evt_")
    assert "idempotent-replayed" not in answer.headers
    assert [event.idempotency_key for event in world.events] == ["k"]


async def test_a_repeated_key_is_replayed(http: httpx.AsyncClient, world: World) -> None:
    first = await http.post("/api/track", json=EVENT, headers={"Idempotency-Key": "k"})
    again = await http.post("/api/track", json=EVENT, headers={"Idempotency-Key": '"k"'})
    assert (again.status_code, again.json()) == (200, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert len(world.events) == 1


async def test_a_key_with_other_content_is_a_conflict(http: httpx.AsyncClient) -> None:
    await http.post("/api/track", json=EVENT, headers={"Idempotency-Key": "k"})
    answer = await http.post(
        "/api/track", json=EVENT | {"amount": 2}, headers={"Idempotency-Key": "k"}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")


async def test_events_without_key_are_all_stored(http: httpx.AsyncClient, world: World) -> None:
    answers = [await http.post("/api/track", json=EVENT) for _ in range(3)]
    assert len({answer.json()["eventId"] for answer in answers}) == 3
    assert len(world.events) == 3


async def test_many_at_once_each_get_their_own_answer(
    http: httpx.AsyncClient, world: World
) -> None:
    async def send(number: int) -> str:
        headers = {"Idempotency-Key": f"k{number}"}
        answer = await http.post("/api/track", json=EVENT | {"amount": number}, headers=headers)
        return str(answer.json()["eventId"])

    first = await asyncio.gather(*(send(number) for number in range(100)))
    again = await asyncio.gather(*(send(number) for number in range(100)))
    assert first == again
    assert len(set(first)) == len(world.events) == 100


@pytest.mark.parametrize(
    ("headers", "error", "code"),
    [
        ({}, "Missing API key", "missing_api_key"),
        ({"x-usageflow-api-key": ""}, "Missing API key", "missing_api_key"),
        ({"authorization": "Basic abc"}, "Missing API key", "missing_api_key"),
        ({"x-usageflow-api-key": "nope"}, "Invalid API key", "invalid_api_key"),
        ({"x-usageflow-api-key": "uf_test_" + "x" * 38}, "Invalid API key", "invalid_api_key"),
        ({"authorization": "Bearer nope"}, "Invalid API key", "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("path", ["/api/track", "/api/track/batch", "/api/metrics"])
async def test_a_missing_or_wrong_key_is_401(
    gateway: Gateway, path: str, headers: dict[str, str], error: str, code: str
) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        answer = await client.post(path, json=EVENT, headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {
        "error": error,
        "code": code,
        "details": [],
        "requestId": answer.headers["x-request-id"],
    }


async def test_a_bearer_key_is_taken_and_asked_for_once(gateway: Gateway) -> None:
    headers = {"Authorization": f"Bearer {gateway.world.new_key()}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        answers = [await client.post("/api/track", json=EVENT) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert gateway.world.resolved == 1


@pytest.mark.parametrize("path", ["/api/track", "/api/track/batch"])
async def test_a_key_without_the_scope_is_403(gateway: Gateway, path: str) -> None:
    headers = {"x-usageflow-api-key": gateway.world.new_key("read", "admin")}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        answer = await client.post(path, json=EVENT)
    assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")
    assert gateway.world.events == []


async def test_what_is_wrong_is_400_and_names_every_field(http: httpx.AsyncClient) -> None:
    body = {"metric": "API_CALL", "amount": -1, "customer_id": "u"}
    answer = await http.post("/api/track", json=body, headers=[(b"Idempotency-Key", "é".encode())])
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument")
    fields = [detail["field"] for detail in answer.json()["details"]]
    assert fields == ["customer_id", "amount", "Idempotency-Key"]


async def test_ingest_is_told_of_strict_metrics_whichever_way_an_event_comes(
    gateway: Gateway,
) -> None:
    """400 for what it rejects, 503 while it can't tell."""
    headers = {"x-usageflow-api-key": gateway.world.new_key("track", strict=True)}
    gateway.world.defined = {"API_CALL"}
    other = EVENT | {"metric": "API_CALLS"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        assert (await client.post("/api/track", json=EVENT)).status_code == 200
        refused = await client.post("/api/track", json=other)
        assert refused.status_code == 400
        assert refused.json()["details"][0]["field"] == "metric"
        batch = {"events": [EVENT, other]}
        answer = (await client.post("/api/track/batch", json=batch)).json()
        refusals = [result["status"] == "REJECTED" for result in answer["results"]]
        assert refusals == [False, True]
        gateway.world.undefined_are = ingest_pb2.RECEIPT_STATUS_UNAVAILABLE
        for path, body in (("/api/track", other), ("/api/track/batch", batch)):
            away = await client.post(path, json=body)
            assert (away.status_code, "retry-after" in away.headers) == (503, True)


async def test_an_event_may_be_as_late_as_its_organization_chose(gateway: Gateway) -> None:
    """Whether it is read the quick way, the exact way (an escape) or in a batch."""
    old = (clock.now() - timedelta(days=300)).isoformat()
    escaped = json.dumps(EVENT | {"timestamp": old}).replace("API", "\\u0041PI")
    for days, status in ((400, 200), (35, 400)):
        key = gateway.world.new_key("track", event_past_days=days)
        headers = {"x-usageflow-api-key": key, "content-type": "application/json"}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
            # The first answer has the key looked up; only then can the quick way be taken.
            await client.post("/api/track", json=EVENT)
            plain = await client.post("/api/track", json=EVENT | {"timestamp": old})
            exact = await client.post("/api/track", content=escaped)
            batch = {"events": [EVENT | {"timestamp": old}]}
            batched = await client.post("/api/track/batch", json=batch)
        assert [plain.status_code, exact.status_code] == [status, status]
        assert batched.json()["accepted"] == (status == 200)
        if status == 400:
            message = "must be from 35 days ago to 5 minutes ahead"
            assert plain.json()["details"] == [{"field": "timestamp", "message": message}]
    assert set(gateway.world.past_days_told) == {400, 35}


async def test_an_event_may_be_as_early_as_a_test_clock_of_its_organization(
    gateway: Gateway,
) -> None:
    """Ingest is told of the clocks, too; an event without a time goes there without one."""
    ahead = clock.now() + timedelta(days=40)
    micros = int(ahead.timestamp() * 1_000_000)
    key = gateway.world.new_key("track", test_clocks=(("user_1", micros),))
    headers = {"x-usageflow-api-key": key}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        for minutes, status in ((4, 200), (6, 400)):
            event = EVENT | {"timestamp": (ahead + timedelta(minutes=minutes)).isoformat()}
            plain = await client.post("/api/track", json=event)
            batched = await client.post("/api/track/batch", json={"events": [event]})
            assert plain.status_code == status, plain.text
            assert batched.json()["accepted"] == (status == 200)
        await client.post("/api/track", json=EVENT)
    assert not gateway.world.events[-1].HasField("time")
    assert gateway.world.clocks_told == [[("user_1", micros)]] * 3


async def test_two_idempotency_keys_are_refused(http: httpx.AsyncClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await http.post("/api/track", json=EVENT, headers=headers)
    assert answer.json()["details"] == [
        {"field": "Idempotency-Key", "message": "must be sent once"}
    ]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize("path", ["/api/track", "/api/track/batch", "/api/metrics"])
async def test_another_content_type_is_415(
    http: httpx.AsyncClient, path: str, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    answer = await http.post(path, content=json.dumps(EVENT), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("path", "size"),
    [("/api/track", 256 << 10), ("/api/track/batch", 4 << 20), ("/api/metrics", 256 << 10)],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_413(
    http: httpx.AsyncClient, path: str, size: int, chunked: bool
) -> None:
    async def parts() -> Any:
        for _ in range(size // 4096 + 1):
            yield b" " * 4096

    content = parts() if chunked else b" " * (size + 1)
    answer = await http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_body_at_the_limit_is_read(http: httpx.AsyncClient) -> None:
    body = json.dumps(EVENT).encode()
    headers = {"Content-Type": "application/json"}
    answer = await http.post("/api/track", content=body.ljust(256 << 10), headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/api/track", "/api/track/batch"])
async def test_only_post_is_allowed(http: httpx.AsyncClient, path: str, method: str) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "failure",
    [
        UnavailableError("PostgreSQL is away", retry_after_s=2),
        OverloadedError("the queue is full", retry_after_s=2),
        RuntimeError("a defect"),
        InvalidArgumentError([]),
    ],
)
async def test_an_event_that_could_not_be_stored_is_503_and_may_be_sent_again(
    http: httpx.AsyncClient, world: World, failure: Exception
) -> None:
    world.record_failure = failure
    answer = await http.post("/api/track", json=EVENT, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    world.record_failure = None
    again = await http.post("/api/track", json=EVENT, headers={"Idempotency-Key": "k"})
    assert again.status_code == 200


async def test_a_batch_has_a_result_for_each_event(http: httpx.AsyncClient, world: World) -> None:
    events: list[Any] = [
        {"metric": "A", "amount": 1, "idempotencyKey": "k1"},
        {"metric": "A", "amount": "x"},
        {"metric": "A", "amount": 1, "idempotencyKey": "k1"},
        {"metric": "A", "amount": 2, "idempotencyKey": "k1"},
        "no event",
        {"metric": "A", "amount": 0.1},
    ]
    answer = await http.post("/api/track/batch", json={"events": events})
    body = answer.json()
    counts = {name: body[name] for name in ("accepted", "duplicates", "conflicts", "rejected")}
    assert counts == {"accepted": 2, "duplicates": 1, "conflicts": 1, "rejected": 2}
    assert [result["index"] for result in body["results"]] == list(range(6))
    assert [result["status"] for result in body["results"]] == [
        "ACCEPTED",
        "REJECTED",
        "DUPLICATE",
        "CONFLICT",
        "REJECTED",
        "ACCEPTED",
    ]
    assert body["results"][0]["eventId"] == body["results"][2]["eventId"]
    assert body["results"][1] == {
        "index": 1,
        "status": "REJECTED",
        "eventId": None,
        "error": 'amount: must be a decimal such as "12.5"',
    }
    assert [event.amount for event in world.events] == ["1", "0.1"]


async def test_ten_thousand_lines_are_stored(http: httpx.AsyncClient, world: World) -> None:
    lines = [
        json.dumps({"metric": "A", "amount": 1, "idempotencyKey": f"k{n}"}) for n in range(9_999)
    ]
    content = "\n".join([*lines, "{"]) + "\n"
    headers = {"Content-Type": "application/x-ndjson"}
    answer = await http.post("/api/track/batch", content=content, headers=headers)
    assert answer.json()["accepted"] == 9_999
    assert answer.json()["results"][-1]["status"] == "REJECTED"
    assert [event.idempotency_key for event in world.events] == [f"k{n}" for n in range(9_999)]


async def test_a_batch_is_refused_as_a_whole_when_it_is_no_batch(http: httpx.AsyncClient) -> None:
    answer = await http.post("/api/track/batch", json={"events": [EVENT] * 1_001})
    assert answer.status_code == 400
    assert [detail["field"] for detail in answer.json()["details"]] == ["events"]


async def test_a_key_for_a_whole_batch_is_refused(http: httpx.AsyncClient, world: World) -> None:
    headers = {"Idempotency-Key": "k"}
    answer = await http.post("/api/track/batch", json={"events": [EVENT]}, headers=headers)
    assert [detail["field"] for detail in answer.json()["details"]] == ["Idempotency-Key"]
    assert world.events == []


async def test_a_batch_that_could_not_be_stored_is_503(
    http: httpx.AsyncClient, world: World
) -> None:
    world.record_failure = UnavailableError("PostgreSQL is away")
    answer = await http.post("/api/track/batch", json={"events": [EVENT]})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_unknown_query_parameters_are_refused(http: httpx.AsyncClient, world: World) -> None:
    for path in ("/api/track?customerId=u", "/api/track/batch?dry=1"):
        answer = await http.post(path, json=EVENT)
        assert answer.status_code == 400
        assert "unknown query parameter" in answer.json()["error"]
    assert world.events == []


def comparable(answer: httpx.Response) -> tuple[int, dict[str, str], dict[str, Any]]:
    """An answer without what differs from request to request."""
    names = answer.headers.keys() - {"date", "x-request-id"}
    body = answer.json() | {"requestId": None, "eventId": None}
    return answer.status_code, {name: answer.headers[name] for name in names}, body


async def test_a_request_is_answered_alike_with_and_without_asgi(
    http: httpx.AsyncClient, world: World
) -> None:
    """Another spelling of the content type is unusual: it takes the way through ASGI."""

    async def both(amount: int) -> list[tuple[int, dict[str, str], dict[str, Any]]]:
        answers = []
        for content_type in ("application/json", "application/json; charset=utf-8"):
            headers = {"Content-Type": content_type, "Idempotency-Key": content_type}
            content = json.dumps(EVENT | {"amount": amount})
            answer = await http.post("/api/track", content=content, headers=headers)
            answers.append(comparable(answer))
        return answers

    for amount, status in ((1, 200), (1, 200), (2, 409)):
        quick, asgi = await both(amount)
        assert quick == asgi
        assert quick[0] == status
    world.record_failure = UnavailableError("away", retry_after_s=2)
    quick, asgi = await both(1)
    assert quick == asgi
    assert quick[1]["retry-after"] == "2"


async def test_every_answer_for_stored_events_carries_the_usage_token(
    http: httpx.AsyncClient, world: World
) -> None:
    headers = {"Idempotency-Key": "k"}
    slow = {"Content-Type": "application/json; charset=utf-8"}
    lines = {"Content-Type": "application/x-ndjson"}
    for answer in [
        await http.post("/api/track", json=EVENT, headers=headers),
        await http.post("/api/track", json=EVENT, headers=headers),
        await http.post("/api/track", content=json.dumps(EVENT), headers=slow),
        await http.post("/api/track/batch", json={"events": [EVENT]}),
        await http.post("/api/track/batch", content=json.dumps(EVENT), headers=lines),
    ]:
        assert (answer.status_code, answer.headers["usage-token"]) == (200, USAGE_TOKEN)
    refused = await http.post("/api/track/batch", json={"events": [{}]})
    assert (refused.status_code, "usage-token" in refused.headers) == (200, False)


async def test_the_tokens_of_several_calls_become_one(
    http: httpx.AsyncClient, world: World
) -> None:
    """A batch of 10,000 lines is more than one call."""
    world.usage_tokens = [usage_token.encode([new_uuid()], clock.now()) for _ in range(9)]
    told = list(world.usage_tokens)
    lines = "\n".join([json.dumps(EVENT)] * 5_000)
    headers = {"Content-Type": "application/x-ndjson"}
    answer = await http.post("/api/track/batch", content=lines, headers=headers)
    used = told[: len(told) - len(world.usage_tokens)]
    assert len(used) == 3
    assert answer.headers["usage-token"] == usage_token.join(used)
