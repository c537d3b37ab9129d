"""What docs/webhooks.md tells receivers to write works, and tells of every event type."""

import re
from pathlib import Path
from typing import Any

from services.kit import clock
from services.notifier.domain import webhook_body
from services.notifier.filters import EVENT_TYPES
from services.notifier.settings import RETRY_DELAYS_S
from services.notifier.signing import HMAC, make_key, signature_header

GUIDE = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()


def test_the_python_example_takes_what_is_signed_and_nothing_else(capsys: Any) -> None:
    [code] = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    receive = names["receive"]
    key, now = make_key(HMAC), clock.now()
    body = webhook_body("invoice.created", now, '{"invoiceId":"inv_1"}')
    headers = {
        "webhook-id": "whevt_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature_header([key], "whevt_1", int(now.timestamp()), body),
    }
    assert receive(key.secret, headers, body) == 204
    assert "whevt_1 invoice.created {'invoiceId': 'inv_1'}" in capsys.readouterr().out
    assert receive(key.secret, headers, body + b" ") == 401
    assert receive(make_key(HMAC).secret, headers, body) == 401
    assert receive(key.secret, headers | {"webhook-timestamp": "1"}, body) == 401


def test_every_event_type_is_told() -> None:
    for event_type in EVENT_TYPES:
        group, _, name = event_type.partition(".")
        assert re.search(rf"`{group}\.", GUIDE), event_type
        assert re.search(rf"`({group})?\.{name}`", GUIDE), event_type


def test_the_schedule_is_told() -> None:
    spoken = "5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h"
    units = {"s": 1, "min": 60, "h": 3_600}
    told = [int(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)", spoken)]
    assert [0, *told] == list(RETRY_DELAYS_S)
    assert spoken in " ".join(GUIDE.split())
