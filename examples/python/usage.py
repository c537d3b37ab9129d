"""Records usage with UsageFlow. Copy this file into your back end."""

import os
import uuid

import requests
from requests.adapters import HTTPAdapter, Retry

TIMEOUT_S = 5
# A POST may be repeated here because every attempt carries the same Idempotency-Key: the event is
# billed once even when it was stored and only the answer got lost.
RETRIES = Retry(
    total=3,
    backoff_factor=0.1,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods={"POST"},
)

session = requests.Session()
session.mount("http://", HTTPAdapter(max_retries=RETRIES))
session.mount("https://", HTTPAdapter(max_retries=RETRIES))


def record_usage(
    customer_id: str,
    metric: str = "API_CALL",
    amount: int | str = 1,
    metadata: dict[str, str] | None = None,
) -> str:
    """Record one billable action; the event's id once it is durably stored.

    Give fractions as text ("0.25"): a float is not exact. Raises requests.RequestException when
    the event was refused, or could not be stored within all attempts.
    """
    url = os.environ["USAGEFLOW_URL"] + "/api/track"
    headers = {
        "Content-Type": "application/json",
        "x-usageflow-api-key": os.environ["USAGEFLOW_API_KEY"],
        "Idempotency-Key": str(uuid.uuid4()),
    }
    payload = {"metric": metric, "amount": amount, "customerId": customer_id}
    if metadata is not None:
        payload["metadata"] = metadata
    response = session.post(url, json=payload, headers=headers, timeout=TIMEOUT_S)
    response.raise_for_status()
    return response.json()["eventId"]
