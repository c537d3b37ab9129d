"""Metrics that are defined, changed and archived when they have counted events, over HTTP."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from cli.connection import Connection
from cli.stack import running_stack
from tests.e2e.api import Api, connection_of, new_key, new_organization, wait_for
from tests.e2e.homes import copy_home

WAIT_S = 60.0


@pytest.fixture(scope="module")
def api(stack: Connection, stack_home: Path) -> Api:
    """An organization of these tests' own."""
    return Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))


def counted(api: Api, *events: tuple[str, str, str]) -> str:
    """A metric that nobody defined, which has counted events (amount, model, user)."""
    metric = new_key("LATER")
    send(api, metric, *events)
    api.await_usage(str(sum(int(amount) for amount, _, _ in events)), WAIT_S, metric=metric)
    return metric


def send(api: Api, metric: str, *events: tuple[str, str, str]) -> None:
    """Events of a metric."""
    answer = api.batch(
        [
            {"metric": metric, "amount": amount, "customerId": "c", "idempotencyKey": new_key()}
            | {"metadata": {"model": model, "user": user}}
            for amount, model, user in events
        ]
    )
    assert answer["accepted"] == len(events)


def built(api: Api, metric: str) -> dict[str, Any]:
    """The metric, once its rebuild has ended."""
    wait_for(
        "the end of the rebuild",
        lambda: api.get(f"/api/metrics/{metric}")["rebuild"]["state"] != "RUNNING",
        WAIT_S,
    )
    return api.get(f"/api/metrics/{metric}")


def grouped(api: Api, metric: str, **asked: str) -> dict[str, str]:
    """This month's figures by model."""
    rows = api.get("/api/usage", metric=metric, groupBy="model", **asked)["data"]
    return {row["group"]["model"]: row["value"] for row in rows}


def test_a_metric_is_given_any_definition_after_its_events(api: Api) -> None:
    metric = counted(
        api, ("1", "a", "ada"), ("2", "a", "bob"), ("4", "b", "ada"), ("8", "b", "ada")
    )
    wanted = {"aggregation": "UNIQUE_COUNT", "uniqueBy": "user", "dimensions": ["model"]}
    api.post("/api/metrics", {"key": metric, "name": "N", "percentiles": True, **wanted})
    found = built(api, metric)
    assert found["rebuild"]["state"] == "DONE"
    assert (found["rebuild"]["progress"], found["rebuild"]["eventsDone"]) == (100, 4)
    assert found | {"name": "N", "percentiles": True, **wanted} == found
    assert grouped(api, metric) == {"a": "2", "b": "1"}
    assert grouped(api, metric, percentile="P95") == {"a": "2", "b": "8"}
    send(api, metric, ("1", "b", "eve"))
    wait_for("the event", lambda: grouped(api, metric) == {"a": "2", "b": "2"}, WAIT_S)


def test_a_metric_is_changed_and_what_is_left_out_stays(api: Api) -> None:
    metric = counted(api, ("1", "a", "ada"), ("2", "b", "bob"))
    api.post("/api/metrics", {"key": metric, "name": "N", "unit": "u"})
    changed = api.ok(api.http.patch(f"/api/metrics/{metric}", json={"name": "M"}))
    assert (changed["name"], changed["unit"], changed["rebuild"]) == ("M", "u", None)
    tag = {"If-Match": '"another"'}
    dimensions = {"dimensions": ["model"]}
    refused = api.http.patch(f"/api/metrics/{metric}", json=dimensions, headers=tag)
    assert refused.status_code == 412
    tag = {"If-Match": api.http.get(f"/api/metrics/{metric}").headers["etag"]}
    api.ok(api.http.patch(f"/api/metrics/{metric}", json=dimensions, headers=tag))
    found = built(api, metric)
    assert (found["name"], found["dimensions"], found["aggregation"]) == ("M", ["model"], "SUM")
    assert grouped(api, metric) == {"a": "1", "b": "2"}
    refused = api.http.patch(f"/api/metrics/{metric}", json={"aggregation": "UNIQUE_COUNT"})
    assert refused.status_code == 400
    assert [problem["field"] for problem in refused.json()["details"]] == ["uniqueBy"]


def test_what_was_billed_or_is_limited_stays(api: Api) -> None:
    metric = counted(api, ("1", "a", "ada"))
    api.post("/api/metrics", {"key": metric})
    quota = api.post("/api/quotas", {"metric": metric, "customerId": "c", "limit": "10"})["id"]
    refused = api.http.patch(f"/api/metrics/{metric}", json={"aggregation": "MAX"})
    assert (refused.status_code, refused.json()["code"]) == (409, "metric_has_quotas")
    api.ok(api.http.patch(f"/api/metrics/{metric}", json={"dimensions": ["model"]}))
    built(api, metric)
    check = {"metric": metric, "customerId": "c", "amount": "9"}
    assert api.get("/api/quotas/check", **check)["allowed"] is True
    assert api.get("/api/quotas/check", **check | {"amount": "10"})["allowed"] is False
    assert api.http.delete(f"/api/quotas/{quota}").is_success
    price = {"metric": metric, "model": "PER_UNIT", "unitPrice": "1.00"}
    plan = api.post("/api/plans", {"name": "P", "currency": "USD", "metrics": [price]})
    body = {"customerId": "c", "planId": plan["id"]}
    subscription = api.post("/api/subscriptions", body)
    api.post("/api/invoices/preview", {"subscriptionId": subscription["id"]})
    forbidden: list[dict[str, Any]] = [{"aggregation": "COUNT"}, {"dimensions": []}]
    for change in forbidden:
        refused = api.http.patch(f"/api/metrics/{metric}", json=change)
        assert (refused.status_code, refused.json()["code"]) == (409, "metric_is_billed")
    api.ok(api.http.patch(f"/api/metrics/{metric}", json={"dimensions": ["model", "user"]}))
    assert built(api, metric)["dimensions"] == ["model", "user"]
    refused = api.http.post(f"/api/metrics/{metric}/archive")
    assert (refused.status_code, refused.json()["code"]) == (409, "metric_is_billed")


def test_an_archived_metric_is_not_listed_and_counts_all_the_same(api: Api) -> None:
    metric = counted(api, ("1", "a", "ada"))
    assert api.ok(api.http.post(f"/api/metrics/{metric}/archive"))["archivedAt"] is not None

    def listed(**asked: str) -> bool:
        return metric in [
            each["key"] for each in api.get("/api/metrics", limit="100", **asked)["data"]
        ]

    assert not listed()
    assert listed(includeArchived="true")
    send(api, metric, ("2", "a", "ada"))
    api.await_usage("3", WAIT_S, metric=metric)
    assert api.ok(api.http.post(f"/api/metrics/{metric}/unarchive"))["archivedAt"] is None
    assert listed()


def test_aggregator_killed_in_the_middle_counts_everything_once(
    tmp_path: Path, prepared_home: Path
) -> None:
    with running_stack(copy_home(prepared_home, tmp_path)) as connection:
        api = Api(connection.http, connection.api_key)
        metric = new_key("LATER")
        for _ in range(3):
            lines = "\n".join(
                json.dumps({"metric": metric, "amount": 1, "metadata": {"model": f"m{n % 3}"}})
                for n in range(9_999)
            )
            headers = {"Content-Type": "application/x-ndjson"}
            answer = api.http.post("/api/track/batch", content=lines, headers=headers)
            assert api.ok(answer)["accepted"] == 9_999
        api.await_usage("29997", WAIT_S, metric=metric)
        change = {"key": metric, "dimensions": ["model"]}
        define = threading.Thread(target=lambda: api.http.post("/api/metrics", json=change))
        define.start()
        reader = Api(connection.http, connection.api_key)

        def begun() -> bool:
            rebuild = reader.get(f"/api/metrics/{metric}")["rebuild"]
            return rebuild is not None and rebuild["eventsDone"] > 0

        wait_for("the beginning", begun, WAIT_S)
        os.kill(connection_of(tmp_path).pids["aggregator"], signal.SIGKILL)
        define.join()
        send(reader, metric, ("1", "m0", "ada"))

        def done() -> bool:
            answer = reader.http.get(f"/api/metrics/{metric}")
            return answer.is_success and answer.json()["rebuild"]["state"] == "DONE"

        wait_for("the end", done, 2 * WAIT_S)
        expected = {"m0": "10000", "m1": "9999", "m2": "9999"}
        wait_for("usage", lambda: grouped(reader, metric) == expected, WAIT_S)


def test_with_strict_metrics_events_and_prices_of_an_undefined_metric_are_refused(
    stack: Connection, stack_home: Path
) -> None:
    """And taken as soon as the metric is defined, over HTTP."""
    api = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    changed = api.http.patch("/api/organization", json={"settings": {"strictMetrics": True}})
    assert changed.json()["settings"]["strictMetrics"]
    metric = new_key("STRICT")
    wait_for(
        "the refusal, by every process",
        lambda: api.track(new_key(), metric=metric, amount=1).status_code == 400,
        WAIT_S,
    )
    sent = [{"metric": metric, "amount": 1}]
    assert api.batch(sent)["rejected"] == 1
    price = {"metric": metric, "model": "PER_UNIT", "unitPrice": "1"}
    plan = {"name": "Pro", "currency": "USD", "metrics": [price]}
    refused = api.http.post("/api/plans", json=plan)
    assert refused.status_code == 400
    assert [each["field"] for each in refused.json()["details"]] == ["metrics[0].metric"]
    api.post("/api/metrics", {"key": metric})
    api.post("/api/plans", plan)
    assert api.track(new_key(), metric=metric, amount=1).status_code == 200
    assert api.batch(sent)["accepted"] == 1


def test_a_plan_prices_a_metric_once_somebody_has_defined_it_or_its_first_event_is_counted(
    stack: Connection, stack_home: Path
) -> None:
    api = Api(stack.http, new_organization(stack_home, stack.grpc["accounts"]))
    defined, sent = new_key("DEFINED"), new_key("SENT")
    prices = [
        {"metric": metric, "model": "PER_UNIT", "unitPrice": "1"} for metric in (defined, sent)
    ]
    plan = {"name": "Pro", "currency": "USD", "metrics": prices}

    def refused() -> list[str]:
        answer = api.http.post("/api/plans", json=plan)
        assert answer.status_code in (201, 400), answer.text
        return [each["field"] for each in answer.json().get("details", [])]

    assert refused() == ["metrics[0].metric", "metrics[1].metric"]
    assert api.get("/api/plans")["data"] == []
    api.post("/api/metrics", {"key": defined})
    assert refused() == ["metrics[1].metric"]
    assert api.track(new_key(), metric=sent, amount=1).status_code == 200
    wait_for("the first event", lambda: not refused(), WAIT_S)
    made = api.get("/api/plans")["data"][0]
    months = {"from": "2026-01", "to": "2026-01"}
    typo = {**plan, "metrics": [{**prices[0], "metric": new_key("TYPO")}]}
    for path, body in (
        (f"/api/plans/{made['id']}/versions", typo),
        ("/api/plans/simulate", {"plan": typo, **months}),
    ):
        answer = api.http.post(path, json=body)
        assert answer.status_code == 400
        assert [each["field"] for each in answer.json()["details"]] == ["metrics[0].metric"]
    assert api.http.post("/api/plans/quote", json={"plan": typo}).status_code == 200
    api.post(f"/api/metrics/{defined}/archive", {})
    assert refused() == ["metrics[0].metric"]
