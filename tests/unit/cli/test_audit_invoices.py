"""What an audit of invoices works out, by hand-checked figures."""

import itertools
from datetime import datetime
from fractions import Fraction
from typing import Any

import pytest

from cli.auditing.invoices.books import Books, Entry
from cli.auditing.invoices.calendar import Calendar
from cli.auditing.invoices.chain import Chain
from cli.auditing.invoices.content import FIRST_PREVIOUS, chained_hash, content_hash
from cli.auditing.invoices.money import rounded
from cli.auditing.invoices.prices import Used, part_of, price_of
from cli.auditing.invoices.seconds import about, stays
from cli.auditing.invoices.sums import plain

WHOLE = (Fraction(1), Fraction(0))
TIERS = [
    {"upTo": "5", "unitPrice": "2", "flatPrice": "1"},
    {"upTo": None, "unitPrice": "0.5", "flatPrice": "3"},
]
STEPS = [{"upTo": "5", "flatPrice": "10"}, {"upTo": None, "flatPrice": "15"}]


def cost(model: str, parameters: dict[str, Any], quantity: str, **more: Any) -> str:
    """What a price asks for, in USD."""
    price: dict[str, Any] = {"model": model, "parameters": parameters, "included_units": "0"}
    price |= {"minimum": None, "maximum": None, **more.pop("price", {})}
    each = tuple(map(Fraction, more.pop("each", ())))
    used = Used(Fraction(quantity), more.pop("events", 0), more.pop("parts", ()), each)
    return plain(price_of(price, used, "USD", more.pop("percents", ()), [WHOLE]))


@pytest.mark.parametrize(
    ("model", "parameters", "quantity", "expected"),
    [
        ("PER_UNIT", {"unitPrice": "0.005"}, "3", "0.02"),  # 0.015
        ("GRADUATED", {"tiers": TIERS}, "0", "1"),
        ("GRADUATED", {"tiers": TIERS}, "5", "11"),  # 5 x 2 + 1
        ("GRADUATED", {"tiers": TIERS}, "5.5", "14.25"),  # 11 + 0.5 x 0.5 + 3
        ("VOLUME", {"tiers": TIERS}, "5", "11"),
        ("VOLUME", {"tiers": TIERS}, "5.5", "5.75"),  # 5.5 x 0.5 + 3
        ("STAIRSTEP", {"tiers": STEPS}, "5", "10"),
        ("STAIRSTEP", {"tiers": STEPS}, "5.001", "15"),
        ("PACKAGE", {"packageSize": "10", "packagePrice": "3"}, "0", "0"),
        ("PACKAGE", {"packageSize": "10", "packagePrice": "3"}, "10.1", "6"),
    ],
)
def test_models_price_a_quantity(
    model: str, parameters: dict[str, Any], quantity: str, expected: str
) -> None:
    assert cost(model, parameters, quantity) == expected


def test_percentages_of_what_is_not_free_and_of_each_event() -> None:
    parameters = {"rate": "1.5", "freeAmount": "10", "fixedPerEvent": "0.1"}
    assert cost("PERCENTAGE", parameters, "110", events=3) == "1.8"  # 100 x 1.5 % + 3 x 0.10


@pytest.mark.parametrize(
    ("more", "included", "expected"),
    [
        # 100 is free; 1 -> 2; 3; 8 -> 5
        ({}, "0", "10"),
        # of the free one 100, of the next 10: nothing left of it, so no least price; 3 + 5
        ({}, "110", "8"),
        # of 10 + 30 + 80 the first 25 are free: 0; 15 x 10 % = 1.5 -> 2; 8 -> 5
        ({"freeAmount": "25"}, "0", "7"),
        # 1 + 1.5 = 2.5; 3 + 1.5 = 4.5; 8 + 1.5 -> 5
        ({"fixedPerEvent": "1.5"}, "0", "12"),
    ],
)
def test_prices_of_each_event(more: dict[str, str], included: str, expected: str) -> None:
    parameters = {"rate": "10", "freeEvents": "1", "minPerEvent": "2", "maxPerEvent": "5", **more}
    events = ("100", "10", "30", "80")
    price = {"included_units": included}
    assert cost("PERCENTAGE", parameters, "220", events=4, each=events, price=price) == expected


def test_the_price_with_the_most_dimensions_is_tried_first() -> None:
    prices = [
        {"match": {"model": "a"}, "unitPrice": "1"},
        {"match": {"model": "a", "region": "eu"}, "unitPrice": "10"},
    ]
    parts = (Fraction(2), Fraction(3), Fraction(4))
    # Of two and one dimension, and the rest; the first of three included units are those of two.
    included = {"included_units": "3"}
    got = cost(
        "DIMENSIONAL", {"prices": prices, "unitPrice": "0.1"}, "9", parts=parts, price=included
    )
    assert got == "2.4"  # 0 x 10 + 2 x 1 + 4 x 0.1


def test_discounts_come_before_the_maximum_and_the_minimum_is_last() -> None:
    unit = {"unitPrice": "1"}
    tenth = (Fraction(10),)
    assert cost("PER_UNIT", unit, "100", percents=tenth, price={"maximum": "95"}) == "90"
    assert cost("PER_UNIT", unit, "100", percents=tenth, price={"maximum": "80"}) == "80"
    assert cost("PER_UNIT", unit, "0", percents=tenth, price={"minimum": "5"}) == "5"


def test_half_a_cent_goes_up_on_both_sides_of_nothing() -> None:
    assert rounded(Fraction(-1, 200), "USD") == Fraction(-1, 100)
    assert rounded(Fraction(1, 2), "JPY") == 1
    assert rounded(Fraction(15, 10_000), "KWD") == Fraction(2, 1000)


def test_parts_of_a_period_sum_to_the_whole() -> None:
    cuts = [Fraction(1), Fraction(2, 3), Fraction(1, 3), Fraction(0)]
    parts = [part_of(Fraction(10), pair, "USD") for pair in itertools.pairwise(cuts)]
    assert [plain(part) for part in parts] == ["3.33", "3.34", "3.33"]


def subscription(start: str, zone: str, length: str, anchor: str) -> Calendar:
    row = {"time_zone": zone, "billing_anchor": anchor}
    return Calendar.of(row, {"anchor_time": start, "billing_period": length})


@pytest.mark.parametrize(
    ("calendar", "number", "begin"),
    [
        (("2026-01-31T00:00+00:00", "UTC", "MONTHLY", "ANNIVERSARY"), 1, "2026-02-28T00:00+00:00"),
        (("2026-01-31T00:00+00:00", "UTC", "MONTHLY", "ANNIVERSARY"), 2, "2026-03-31T00:00+00:00"),
        (("2026-02-10T00:00+00:00", "UTC", "QUARTERLY", "CALENDAR"), 0, "2026-01-01T00:00+00:00"),
        (("2026-02-10T00:00+00:00", "UTC", "YEARLY", "CALENDAR"), 1, "2027-01-01T00:00+00:00"),
        (("2026-01-07T10:00+00:00", "UTC", "WEEKLY", "CALENDAR"), 0, "2026-01-05T00:00+00:00"),
        # Midnight in Kathmandu is a quarter past six in the evening before.
        (("2026-01-31T20:00+00:00", "Asia/Kathmandu", "MONTHLY", "CALENDAR"), 1,
         "2026-02-28T18:15+00:00"),
    ],
)  # fmt: skip
def test_periods_begin_where_the_subscription_says(
    calendar: tuple[str, str, str, str], number: int, begin: str
) -> None:
    made = subscription(*calendar)
    assert made.begin(number) == datetime.fromisoformat(begin)
    assert made.number_at(datetime.fromisoformat(begin)) == number


def test_a_first_part_has_what_is_left_of_its_period() -> None:
    made = subscription("2026-01-16T00:00+00:00", "UTC", "MONTHLY", "CALENDAR")
    start, end = (datetime.fromisoformat(f"2026-{day}T00:00+00:00") for day in ("01-16", "02-01"))
    assert made.share(start, end) == (Fraction(16, 31), Fraction(0))
    assert made.share(start, end, undivided=start) == WHOLE


def note(number: int) -> dict[str, Any]:
    """A credit note as it is stored, and its amount with more digits than it needs."""
    document: dict[str, Any] = {
        "type": "credit_note",
        "number": f"CN-{number}",
        "id": f"cn_{number}",
        "lines": [],
        "changes": [],
    }
    names = "create_time currency customer_id invoice_id mode organization_id reason"
    document |= dict.fromkeys((*names.split(), "refund_reference"))
    document["id"] = f"cn_{number}"
    return document | {"amount": "1.00", "create_time": "2026-01-01T00:00:00+00:00"}


def chained(count: int) -> list[dict[str, Any]]:
    """Rows of so many credit notes that are as they should be."""
    rows, previous = [], FIRST_PREVIOUS
    for number in range(1, count + 1):
        content = content_hash(note(number))
        made = chained_hash(previous, content)
        stored = {"series": "CN", "document_id": f"cn_{number}", "hash": "\\x" + made.hex()}
        stored |= {"previous_hash": "\\x" + previous.hex(), "content_hash": "\\x" + content.hex()}
        rows.append({"series": "CN", "sequence": str(number), "document": note(number)})
        rows[-1]["hash"] = stored
        previous = made
    return rows


def found(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(document, what) of the problems."""
    chain = Chain({"CN": 4})
    problems = [problem for row in rows for problem in chain.follow(row)]
    return [(each.document, each.what) for each in (*problems, *chain.finish())]


def test_a_whole_chain_has_no_problems() -> None:
    assert found(chained(4)) == []


def test_what_is_missing_changed_or_swapped_is_found() -> None:
    rows = chained(4)
    assert found(rows[:3]) == [("CN 4", "number")]
    assert found([rows[0], *rows[2:]]) == [("CN 2", "number")]
    rows[1]["document"]["amount"] = "2"
    assert found(rows) == [("CN-2", "hash of the content")]
    rows = chained(4)
    rows[1]["document"] = None
    assert found(rows) == [("CN 2", "document")]
    rows = chained(4)
    rows[1]["hash"] = None
    assert found(rows) == [("CN-2", "hash")]
    rows = chained(4)
    rows[1]["hash"], rows[2]["hash"] = rows[2]["hash"], rows[1]["hash"]
    assert {document for document, _ in found(rows)} == {"CN-2", "CN-3", "CN-4"}


def phases(*borders: tuple[str, str, str]) -> list[dict[str, Any]]:
    """Of a month from January on, open: plan, start for usage, and by time."""
    begun: list[dict[str, Any]] = [
        {"plan_id": plan, "start_time": at(usage), "exact_start_time": at(second)}
        for plan, usage, second in borders
    ]
    ends = [{"end_time": e["start_time"], "exact_end_time": e["exact_start_time"]} for e in begun]
    same: dict[str, Any] = {
        "kind": "BILLED",
        "plan_version": "1",
        "billing_period": "MONTHLY",
        "quantity": "1",
    }
    same |= {"anchor_time": at("01T00:00:00"), "exact_anchor_time": None}
    over = [*ends[1:], {"end_time": None, "exact_end_time": None}]
    return [{**same, **each, **end} for each, end in zip(begun, over, strict=True)]


def at(text: str) -> str:
    return f"2026-01-{text}+00:00"


def when(text: str) -> datetime:
    return datetime.fromisoformat(at(text))


def booked(*borders: tuple[str, str, str]) -> Books:
    anchored = {"time_zone": "UTC", "billing_anchor": "CALENDAR", "discounts": []}
    return Books(subscriptions={"sub_1": {**anchored, "phases": phases(*borders)}})


CUT = [
    ("plan_1", "01T00:00:00", "01T00:00:00"),
    ("plan_2", "10T10:00:00", "10T10:02:10"),
    ("plan_3", "10T10:00:00", "10T10:04:05"),
]
OF = {"subscription_id": "sub_1"}
FIRST, CHANGED, AGAIN = when("01T00:00:00"), when("10T10:02:10"), when("10T10:04:05")
QUARTER, OVER = when("10T10:00:00"), datetime.fromisoformat("2026-02-01T00:00:00+00:00")


def test_a_part_is_priced_to_the_second_as_its_invoice_says() -> None:
    books = booked(*CUT)
    # Before invoices did: where phases meet.
    assert books.window(OF, FIRST, QUARTER) == (FIRST, CHANGED)
    assert books.window(OF, QUARTER, OVER) == (CHANGED, OVER)
    books.see(
        {
            **OF,
            "period_start": str(FIRST),
            "period_end": str(QUARTER),
            "exact_period_start": str(FIRST),
            "exact_period_end": str(QUARTER),
        }
    )
    assert books.window(OF, FIRST, QUARTER) == (FIRST, QUARTER)
    assert set(books.phase_ends(OF)) == {FIRST, CHANGED, AGAIN}


def test_seconds_are_of_the_plans_that_they_were_on_and_usage_of_the_last_one() -> None:
    books = booked(*CUT)
    found = stays(books, OF, (QUARTER, OVER), (CHANGED, OVER))
    assert [(each.phase["plan_id"], each.spans, each.has_usage) for each in found] == [
        ("plan_3", [(AGAIN, OVER)], True),
        ("plan_2", [(CHANGED, AGAIN)], False),
    ]
    assert books.phase_by_time(OF, CHANGED)["plan_id"] == "plan_2"
    assert books.phase(OF, QUARTER)["plan_id"] == "plan_3"


def test_lines_are_about_the_plan_whose_seconds_they_begin_in() -> None:
    books = booked(*CUT)
    main, other = stays(books, OF, (QUARTER, OVER), (CHANGED, OVER))
    zero = Fraction(0)
    entries = [
        Entry(1, kind, None, start, end, zero, zero, None)
        for kind, start, end in (
            ("BASE", FIRST, CHANGED),
            ("BASE", CHANGED, AGAIN),
            ("MINIMUM", CHANGED, AGAIN),
            ("BASE", AGAIN, OVER),
            ("USAGE", QUARTER, OVER),
            ("MINIMUM", QUARTER, OVER),
            ("TAX", QUARTER, OVER),
        )
    ]
    assert list(about(main, [main, other], entries)) == entries[3:6]
    assert list(about(other, [main, other], entries)) == entries[1:3]


def test_a_period_that_begins_anew_is_a_whole_one_from_its_second_on() -> None:
    row = {"time_zone": "UTC", "billing_anchor": "ANNIVERSARY"}
    phase = {"anchor_time": str(QUARTER), "exact_anchor_time": str(CHANGED)}
    made = Calendar.of(row, {**phase, "billing_period": "MONTHLY"})
    over = datetime.fromisoformat("2026-02-10T10:00:00+00:00")
    assert made.share(CHANGED, over) == WHOLE
    assert made.share(over, made.begin(2)) == WHOLE
