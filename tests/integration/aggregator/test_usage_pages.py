"""The largest groups, and answers page by page."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.aggregator.aggregations import KINDS
from services.aggregator.domain import UNIQUE_COUNT, NewMetric, UsageRow
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import UsageQuestion
from services.aggregator.usage_service import UsageAnswers
from services.kit.database import TenantKey
from services.kit.errors import InvalidArgumentError
from tests.integration.aggregator.sending import Event, batch, new_tenant, question, rows

BY_CUSTOMER = ("customerId",)


async def all_pages(
    answers: UsageAnswers, tenant: TenantKey, asked: UsageQuestion, page_size: int
) -> list[UsageRow]:
    """The rows of all pages, each of which but the last is full."""
    found: list[UsageRow] = []
    token = ""
    while True:
        usage = await answers.query(tenant, replace(asked, page_size=page_size, page_token=token))
        found += usage.rows
        token = usage.next_page_token
        if not token:
            assert len(usage.rows) <= page_size
            return found
        assert len(usage.rows) == page_size


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(sorted(KINDS)),
    st.lists(
        st.tuples(
            st.sampled_from(["", "a", "Z", "ä", "user 1"]),
            st.sampled_from(["", "gpt-4", '"x"']),
            st.decimals("0", "20", places=2),
            st.integers(1, 20),
        ),
        max_size=20,
    ),
    st.integers(1, 7),
    st.sampled_from(["DAY", "WEEK", "TOTAL"]),
    st.sampled_from([(), BY_CUSTOMER, ("model", "customerId")]),
    st.sampled_from(["", "P50"]),
)
async def test_pages_and_tops_are_parts_of_the_whole_answer(
    folder: Folder,
    metrics: Metrics,
    answers: UsageAnswers,
    aggregation: str,
    sent: list[tuple[str, str, Decimal, int]],
    size: int,
    window: str,
    group_by: tuple[str, ...],
    percentile: str,
) -> None:
    tenant = new_tenant()
    unique_by = "hour" if aggregation == UNIQUE_COUNT else ""
    await metrics.create(
        tenant,
        NewMetric(
            "A",
            aggregation=aggregation,
            dimensions=("model",),
            unique_by=unique_by,
            percentiles=True,
        ),
    )
    events = [
        Event(
            "A",
            str(amount),
            who,
            f"2026-03-{day:02}T10:00",
            {"model": model, "hour": int(amount) % 3} if model else {},
        )
        for who, model, amount, day in sent
    ]
    if events:
        await folder.apply([batch(tenant, *events)])
    asked = question("A", window=window, group_by=group_by, percentile=percentile)
    whole = (await answers.query(tenant, asked)).rows
    assert await all_pages(answers, tenant, asked, size) == whole
    if group_by and window == "TOTAL":
        top = (await answers.query(tenant, replace(asked, top=size))).rows
        largest = sorted(whole, key=lambda row: row.value, reverse=True)
        # Of equal figures the first in the order of groups: sorted() keeps it.
        assert top == largest[:size]


async def test_the_largest_customers_come_first(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    sent = [Event("A", f"{number}", f"user_{number}") for number in range(1, 30)]
    await folder.apply([batch(tenant, *sent)])
    found = await rows(answers, tenant, question("A", group_by=BY_CUSTOMER, top=3))
    assert [group for _, group, _ in found] == [("user_29",), ("user_28",), ("user_27",)]


async def test_what_comes_in_between_pages_shifts_nothing(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    sent = [Event("A", "1", name) for name in "bdf"]
    await folder.apply([batch(tenant, *sent)])
    asked = question("A", group_by=BY_CUSTOMER, page_size=2)
    first = await answers.query(tenant, asked)
    await folder.apply([batch(tenant, *(Event("A", "1", name) for name in "aceg"))])
    rest = await answers.query(tenant, replace(asked, page_token=first.next_page_token))
    assert [row.group["customerId"] for row in first.rows] == ["b", "d"]
    assert [row.group["customerId"] for row in rest.rows] == ["e", "f"]


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"top": -1}, {"top"}),
        ({"top": 1_001, "group_by": BY_CUSTOMER}, {"top"}),
        ({"top": 5}, {"top"}),
        ({"top": 5, "group_by": BY_CUSTOMER, "window": "DAY"}, {"top"}),
        ({"top": 5, "group_by": BY_CUSTOMER, "page_size": 5}, {"limit"}),
        ({"page_size": 10_001}, {"limit"}),
        ({"page_size": -1, "top": 1_001}, {"limit", "top"}),
        ({"page_token": "x"}, {"cursor"}),
        ({"page_size": 1, "page_token": "x"}, {"cursor"}),
    ],
)
async def test_wrong_pages_are_refused(
    folder: Folder,
    answers: UsageAnswers,
    tenant: TenantKey,
    changes: dict[str, object],
    fields: set[str],
) -> None:
    await folder.apply([batch(tenant, Event("A"))])
    with pytest.raises(InvalidArgumentError) as caught:
        await answers.query(tenant, question("A", **changes))  # type: ignore[arg-type]
    assert {problem.field for problem in caught.value.problems} == fields


async def test_a_cursor_of_another_question_is_refused(
    folder: Folder, answers: UsageAnswers, tenant: TenantKey
) -> None:
    await folder.apply([batch(tenant, Event("A"), Event("A", "1", "user_2"))])
    asked = question("A", group_by=BY_CUSTOMER, window="DAY", page_size=1)
    token = (await answers.query(tenant, asked)).next_page_token
    for other in (
        replace(asked, group_by=()),
        replace(asked, window="TOTAL"),
        replace(asked, time_zone="Asia/Kolkata"),
    ):
        with pytest.raises(InvalidArgumentError, match="nextCursor"):
            await answers.query(tenant, replace(other, page_token=token))
