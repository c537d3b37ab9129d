"""POST /api/track and /api/track/batch on the real stack, as the contract says."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.connection import Connection
from tests.e2e.api import Api, new_key, new_organization, wait_for


@pytest.fixture(scope="module")
def api(stack: Connection, stack_home: Path) -> Api:
    """An organization of its own: no test clock of others makes its future longer."""
    return Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))


@pytest.fixture
def customer() -> str:
    """A customer nobody else's test bills."""
    return f"customer_{uuid.uuid4().hex}"


def problem_fields(response: httpx.Response) -> set[str]:
    return {detail["field"] for detail in response.json()["details"]}


def test_same_key_with_the_same_content_is_replayed(api: Api, customer: str) -> None:
    key = new_key()
    first = api.track(key, customerId=customer)
    again = api.track(key, customerId=customer)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["success"] is True
    assert first.json()["eventId"].startswith("evt_")
    assert again.json() == first.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    api.await_usage("1", customerId=customer)


@pytest.mark.parametrize(
    "change",
    [{"amount": 2}, {"metric": "AI_TOKEN"}, {"customerId": "somebody_else"}],
    ids=["amount", "metric", "customer"],
)
def test_same_key_with_other_content_is_a_conflict(
    api: Api, customer: str, change: dict[str, Any]
) -> None:
    key = new_key()
    assert api.track(key, customerId=customer).status_code == 200
    response = api.track(key, **{"customerId": customer, **change})
    assert response.status_code == 409
    assert response.json()["code"] == "idempotency_conflict"
    api.await_usage("1", customerId=customer)


def test_equal_amounts_written_differently_are_the_same_content(api: Api, customer: str) -> None:
    key = new_key()
    assert api.track(key, customerId=customer, amount=1).status_code == 200
    for amount in ("1", "1.0", 1.00):
        response = api.track(key, customerId=customer, amount=amount)
        assert response.headers.get("idempotent-replayed") == "true", amount


def test_metadata_is_not_part_of_the_billable_content(api: Api, customer: str) -> None:
    key = new_key()
    api.track(key, customerId=customer, metadata={"region": "eu"})
    response = api.track(key, customerId=customer, metadata={"region": "us"})
    assert response.headers["idempotent-replayed"] == "true"


def test_quantities_are_exact(api: Api, customer: str) -> None:
    for amount in ("0.1", "0.2", "12345678901234567890.000000000001"):
        assert api.track(customerId=customer, amount=amount).status_code == 200
    # A JSON number is read as it is written, too.
    body = f'{{"metric": "API_CALL", "customerId": "{customer}", "amount": 0.3000000000000000001}}'
    refused = api.http.post(
        "/api/track", content=body, headers={"Content-Type": "application/json"}
    )
    assert refused.status_code == 400
    body = body.replace("0.3000000000000000001", "0.300000000001")
    taken = api.http.post("/api/track", content=body, headers={"Content-Type": "application/json"})
    assert taken.status_code == 200
    # JavaScript writes small numbers so.
    body = body.replace("0.300000000001", "1e-7")
    taken = api.http.post("/api/track", content=body, headers={"Content-Type": "application/json"})
    assert taken.status_code == 200
    api.await_usage("12345678901234567890.600000100002", customerId=customer)


def test_missing_and_wrong_keys_are_401_with_the_contracts_words(stack: Connection) -> None:
    missing = Api(stack.http, None).track(new_key())
    assert missing.status_code == 401
    assert missing.json()["error"] == "Missing API key"
    for wrong in ("uf_test_" + "x" * 38, "nonsense", stack.api_key[:-1] + "!"):
        response = Api(stack.http, wrong).track(new_key())
        assert response.status_code == 401
        assert response.json()["error"] == "Invalid API key"


def test_bearer_token_is_a_key_too(stack: Connection) -> None:
    response = httpx.post(
        f"{stack.http}/api/track",
        json={"metric": "API_CALL", "amount": 1},
        headers={"Authorization": f"Bearer {stack.api_key}"},
        trust_env=False,
    )
    assert response.status_code == 200


def test_key_without_scope_is_403_and_revoked_key_401_within_a_second(
    api: Api, stack: Connection
) -> None:
    made = api.post("/api/keys", {"name": "reader", "scopes": ["read"]})
    reader = Api(stack.http, made["secret"])
    assert reader.get("/api/usage", metric="API_CALL") is not None
    assert reader.track(new_key()).status_code == 403
    assert reader.http.post("/api/metrics", json={"key": "X"}).status_code == 403
    revoked = api.http.delete(f"/api/keys/{made['id']}")
    assert revoked.is_success, revoked.text
    wait_for("401", lambda: reader.http.get("/api/metrics").status_code == 401, wait_s=1)


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"metric": ""}, "metric"),
        ({"metric": "a b"}, "metric"),
        ({"metric": "x" * 129}, "metric"),
        ({"metric": 5}, "metric"),
        ({"metric": None}, "metric"),
        ({"amount": -1}, "amount"),
        ({"amount": "-0.01"}, "amount"),
        ({"amount": "1e400"}, "amount"),
        ({"amount": 1e-13}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": ""}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": None}, "amount"),
        ({"amount": [1]}, "amount"),
        ({"amount": "0." + "1" * 13}, "amount"),
        ({"amount": "9" * 39}, "amount"),
        ({"customerId": ""}, "customerId"),
        ({"customerId": "x" * 256}, "customerId"),
        ({"customerId": "a\x07b"}, "customerId"),
        ({"customerId": 7}, "customerId"),
        ({"timestamp": (NOW - timedelta(days=36)).isoformat()}, "timestamp"),
        ({"timestamp": (NOW + timedelta(hours=6)).isoformat()}, "timestamp"),
        ({"timestamp": "2026-01-01T00:00:00"}, "timestamp"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": 5}, "timestamp"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": {"b": 1}}}, "metadata"),
        ({"metadata": {"a": None}}, "metadata"),
        ({"metadata": {"a": "x" * 9000}}, "metadata"),
        ({"metadata": {str(number): 1 for number in range(65)}}, "metadata"),
    ],
)
def test_invalid_content_is_400_naming_the_field(
    api: Api, change: dict[str, Any], field: str
) -> None:
    response = api.track(new_key(), **change)
    assert response.status_code == 400, response.text
    assert problem_fields(response) == {field}
    assert response.json()["requestId"] == response.headers["x-request-id"]


def test_all_wrong_fields_are_named_at_once(api: Api) -> None:
    response = api.track(metric="", amount=-1, timestamp="never")
    assert problem_fields(response) == {"metric", "amount", "timestamp"}


def test_misspelt_field_is_refused_with_the_nearest_known_name(api: Api) -> None:
    response = api.track(new_key(), customer_id="user_123")
    assert response.status_code == 400
    (detail,) = response.json()["details"]
    assert detail["field"] == "customer_id"
    assert 'did you mean "customerId"' in detail["message"].replace("'", '"')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"metric": "A", "amount": NaN}',
        b'{"metric": "A", "amount": Infinity}',
        b'{"metric": "A", "amount": 1, "amount": 2}',
        b'{"metric": "A", "amount": 1, "am\\u006funt": 2}',
        b'{"metric": "A", "amount": 1, "metadata": {"a": 1, "a": 2}}',
        b'{"metric": "A\\ud800", "amount": 1}',
        b'{"metric": "A", "amount": 1, "customerId": "\\udfff"}',
        b'{"metric": "A", "amount": 1, "metadata": ' + b"[" * 20 + b"]" * 20 + b"}",
        b'{"metric": "A", "amount": 1} {}',
        b'{"metric": "A", "amount": 01}',
        b"\xff\xfe",
        b'\xef\xbb\xbf{"metric": "A", "amount": 1}',
    ],
)
def test_json_that_parsers_disagree_on_is_400(api: Api, body: bytes) -> None:
    response = api.http.post(
        "/api/track", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400, response.text
    assert set(response.json()) >= {"error", "code", "details", "requestId"}


def test_refused_event_uses_no_key_up(api: Api, customer: str) -> None:
    key = new_key()
    assert api.track(key, customerId=customer, amount=-1).status_code == 400
    response = api.track(key, customerId=customer, amount=1)
    assert response.status_code == 200
    assert "idempotent-replayed" not in response.headers


@pytest.mark.parametrize("key", [b"", b"x" * 256, "schlüssel".encode("latin-1"), b"a\tb"])
def test_invalid_idempotency_key_is_400(api: Api, key: bytes) -> None:
    response = api.http.post(
        "/api/track",
        json={"metric": "API_CALL", "amount": 1},
        headers={b"Idempotency-Key": key},
    )
    assert response.status_code == 400
    assert problem_fields(response) == {"Idempotency-Key"}


def test_quoted_and_bare_key_are_the_same(api: Api, customer: str) -> None:
    key = new_key()
    bare = api.track(key, customerId=customer)
    quoted = api.track(f'"{key}"', customerId=customer)
    assert quoted.json() == bare.json()
    assert quoted.headers["idempotent-replayed"] == "true"


def test_oversize_body_is_413_and_other_content_415(api: Api) -> None:
    big = json.dumps({"metric": "API_CALL", "amount": 1, "metadata": {"a": "x" * 300_000}})
    response = api.http.post(
        "/api/track", content=big, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    response = api.http.post("/api/track", content="a=b", headers={"Content-Type": "text/plain"})
    assert response.status_code == 415
    assert api.http.get("/api/track").status_code == 405
    assert api.http.get("/api/nothing").status_code == 404


def test_every_event_of_a_batch_has_its_own_result(api: Api, customer: str) -> None:
    key = new_key()
    event = {"metric": "API_CALL", "amount": 1, "customerId": customer, "idempotencyKey": key}
    answer = api.batch(
        [event, event, {**event, "amount": 5}, {**event, "amount": -1}, {"metric": "API_CALL"}]
    )
    counts = [answer[name] for name in ("accepted", "duplicates", "conflicts", "rejected")]
    assert counts == [1, 1, 1, 2]
    statuses = [result["status"] for result in answer["results"]]
    assert statuses == ["ACCEPTED", "DUPLICATE", "CONFLICT", "REJECTED", "REJECTED"]
    assert [result["index"] for result in answer["results"]] == [0, 1, 2, 3, 4]
    assert "amount" in json.dumps(answer["results"][4]["error"])
    api.await_usage("1", customerId=customer)


def test_ndjson_is_a_batch_too(api: Api, customer: str) -> None:
    lines = [
        json.dumps({"metric": "API_CALL", "amount": 1, "customerId": customer}) for _ in range(2500)
    ]
    lines[7] = "{not json"
    answer = api.ok(
        api.http.post(
            "/api/track/batch",
            content="\n".join(lines),
            headers={"Content-Type": "application/x-ndjson"},
        )
    )
    assert (answer["accepted"], answer["rejected"]) == (2499, 1)
    assert answer["results"][7]["status"] == "REJECTED"
    api.await_usage("2499", customerId=customer)


def test_stored_events_can_be_found(api: Api, customer: str) -> None:
    sent = [
        api.track(new_key(), customerId=customer, amount=amount).json()["eventId"]
        for amount in (1, 2, 3)
    ]
    page = api.get("/api/events", customerId=customer, limit="2")
    rest = api.get("/api/events", customerId=customer, limit="2", cursor=page["nextCursor"])
    found = [event["id"] for event in page["data"] + rest["data"]]
    assert sorted(found) == sorted(sent)
    one = api.get(f"/api/events/{sent[1]}")
    assert (one["metric"], one["amount"], one["customerId"]) == ("API_CALL", "2", customer)
