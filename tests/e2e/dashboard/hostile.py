"""Content in which every text that people can give is an attack."""

import json

import httpx

from tests.e2e.api import REQUEST_TIMEOUT_S, Api, wait_for

HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}</script><b>bold</b>"
CUSTOMER = "hostile_customer"
METRIC = "HOSTILE"


def fill(api: Api, receiver_url: str) -> dict[str, str]:
    """Make all of it; the ids of what has a page of its own, by its kind."""
    rate = api.post("/api/tax-rates", {"name": HOSTILE, "percent": "7"})["id"]
    metric = {"key": METRIC, "name": HOSTILE[:100], "unit": "<b>unit", "dimensions": ["model"]}
    api.post("/api/metrics", metric)
    customer = {"id": CUSTOMER, "name": HOSTILE, "metadata": {"note": HOSTILE}, "currency": "USD"}
    api.post("/api/customers", customer)
    taxes = {"taxRateIds": [rate]}
    api.ok(api.http.put(f"/api/customers/{CUSTOMER}/tax-rates", json=taxes))
    quota = {"metric": METRIC, "customerId": CUSTOMER, "limit": "10"}
    api.post("/api/quotas", quota)
    api.post("/api/keys", {"name": HOSTILE, "scopes": ["read"]})
    return _usage(api) | _billing(api) | _webhook(api, receiver_url)


def _usage(api: Api) -> dict[str, str]:
    def track(amount: int, customer_id: str) -> str:
        metadata = {"model": HOSTILE}
        sent = api.track(
            f"{HOSTILE}{amount}",
            metric=METRIC,
            amount=amount,
            customerId=customer_id,
            metadata=metadata,
        )
        return str(api.ok(sent)["eventId"])

    sent = track(3, CUSTOMER)
    api.await_usage("3", metric=METRIC)
    track(1, HOSTILE)
    voided = track(2, CUSTOMER)
    api.post(f"/api/events/{voided}/void", {"reason": HOSTILE})
    return {"event": sent, "voided": voided}


def _billing(api: Api) -> dict[str, str]:
    price = {"model": "DIMENSIONAL", "prices": [{"match": {"model": HOSTILE}, "unitPrice": "2"}]}
    plan = {
        "name": HOSTILE,
        "currency": "USD",
        "basePrice": "1.00",
        "metrics": [price | {"metric": METRIC, "unitPrice": "1"}],
        "discounts": [{"name": HOSTILE, "percent": "10"}],
    }
    plan_id = api.post("/api/plans", plan)["id"]
    subscribed = {"customerId": CUSTOMER, "planId": plan_id}
    subscription = api.post("/api/subscriptions", subscribed)["id"]
    discount = {"name": HOSTILE, "percent": "5"}
    api.post(f"/api/subscriptions/{subscription}/discounts", discount)
    credit = {"amount": "5", "currency": "USD", "description": HOSTILE}
    api.post(f"/api/customers/{CUSTOMER}/credits/grants", credit)
    debit = {"amount": "1", "reason": HOSTILE}
    api.post(f"/api/customers/{CUSTOMER}/credits/debits", debit)
    charge = {"customerId": CUSTOMER, "description": HOSTILE, "unitPrice": "30", "timing": "NOW"}
    invoice = api.post("/api/charges", charge)["invoiceId"]
    api.post(f"/api/invoices/{invoice}/credit-notes", {"reason": HOSTILE})
    api.post("/api/charges", charge | {"customerId": HOSTILE, "currency": "USD"})
    return {"plan": plan_id, "subscription": subscription, "invoice": invoice}


def _webhook(api: Api, receiver_url: str) -> dict[str, str]:
    """The receiver refuses, with an attack."""
    url = f"{receiver_url}/%3Cb%3E"
    webhook = api.post("/api/webhooks", {"url": url, "description": HOSTILE})["id"]
    api.post(f"/api/webhooks/{webhook}/test", {})
    path = f"/api/webhooks/{webhook}/deliveries"
    wait_for("an attempt", lambda: api.get(path)["data"][0]["attempts"], 60)
    return {"webhook": webhook, "delivery": api.get(path)["data"][0]["id"]}


def sign_in(url: str, token: str) -> None:
    """Sign in with a browser whose name is an attack."""
    headers = {"origin": url, "user-agent": HOSTILE}
    form = {"token": token}
    answer = httpx.post(
        f"{url}/sign-in", data=form, headers=headers, timeout=REQUEST_TIMEOUT_S, trust_env=False
    )
    assert answer.status_code == 303, json.dumps(answer.text)
