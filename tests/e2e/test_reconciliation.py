"""A running stack finds and repairs usage that is not what was accepted; audits tell the same."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

import pytest

from cli.connection import Connection
from cli.databases import connected
from cli.stack import running_stack
from services.kit import faults
from services.kit.faults import Fault
from tests.chaos.redelivery import Redelivery
from tests.e2e.api import Api, first_organization_id, new_key, wait_for
from tests.e2e.homes import copy_home

REPAIR_S = 90.0
AUDIT_S = 120.0
KINDS = ("SUM", "COUNT", "MAX", "MIN", "AVG", "LATEST")
AMOUNTS = ("0.1", "0.2", "7", "3")


def sql(url: str, statement: str) -> list[tuple[object, ...]]:
    """The rows of a statement, if it has any."""

    async def run() -> list[tuple[object, ...]]:
        async with connected(url) as connection:
            return [tuple(row) for row in await connection.fetch(statement)]

    return asyncio.run(run())


def audit(home: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`usageflow audit usage` of the home's organization."""
    return subprocess.run(
        [sys.executable, "-m", "cli", "audit", "usage", "--home", str(home), *more],
        capture_output=True,
        text=True,
        timeout=AUDIT_S,
        check=False,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200"},
    )


def events_counted(stack: Connection) -> int:
    """How many events of the metrics here have been counted."""
    [(count,)] = sql(
        stack.databases["aggregator"],
        "SELECT coalesce(sum(event_count), 0) FROM usage_buckets JOIN series USING (series_id) "
        "JOIN metrics USING (metric_id) WHERE key LIKE 'R~_%' ESCAPE '~'",
    )
    return int(str(count))


@pytest.fixture(scope="module")
def api(stack: Connection) -> Api:
    """With metrics of every kind, called R_SUM and so on, and events of two customers of each."""
    api = Api(stack.http, stack.api_key)
    for kind in KINDS:
        by_region = {"dimensions": ["region"], "percentiles": True} if kind == "SUM" else {}
        api.post("/api/metrics", {"key": f"R_{kind}", "aggregation": kind} | by_region)
        for customer in ("r_1", "r_2"):
            for amount in AMOUNTS:
                sent = api.track(
                    new_key(),
                    metric=f"R_{kind}",
                    amount=amount,
                    customerId=customer,
                    metadata={"region": customer},
                )
                assert sent.status_code == 200
    wait_for("usage", lambda: events_counted(stack) == len(KINDS) * 2 * len(AMOUNTS), 30)
    return api


BUCKETS_OF = (
    "FROM series JOIN metrics USING (metric_id) WHERE key = '{key}' "
    "AND usage_buckets.series_id = series.series_id"
)


def test_an_audit_finds_every_kind_as_the_events_say(
    api: Api, stack: Connection, stack_home: Path
) -> None:
    done = audit(stack_home, *(f"--metric=R_{kind}" for kind in KINDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"test: {len(KINDS)} metrics, {2 * len(AMOUNTS) * len(KINDS)} events" in done.stdout
    assert ", 0 differences" in done.stdout


def test_an_audit_tells_what_differs(api: Api, stack: Connection, stack_home: Path) -> None:
    """The largest amounts, which the loop does not look at."""
    database = stack.databases["aggregator"]
    of_max = BUCKETS_OF.format(key="R_MAX")
    sql(database, f"UPDATE usage_buckets SET amount_max = amount_max + 0.5 {of_max}")
    done = audit(stack_home, "--metric=R_MAX", "--org", first_organization_id(stack_home))
    assert done.returncode == 1, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if "R_MAX" in line]
    # An hour and the whole, of two customers.
    assert len(told) == 4, done.stdout
    assert all("7.5" in line and "r_" in line for line in told)
    assert "4 differences" in done.stdout
    sql(database, f"UPDATE usage_buckets SET amount_max = amount_max - 0.5 {of_max}")
    assert audit(stack_home, "--metric=R_MAX").returncode == 0


def test_an_audit_that_can_not_be_made_says_why(api: Api, stack_home: Path, tmp_path: Path) -> None:
    nowhere = audit(tmp_path)
    assert (nowhere.returncode, "no stack runs" in nowhere.stderr) == (2, True)
    stranger = audit(stack_home, "--org", "nobody")
    assert stranger.returncode == 2
    assert "org" in stranger.stderr
    odd = audit(stack_home, "--from", "2026-01-01T00:07")
    assert odd.returncode == 2
    assert "quarter of an hour" in odd.stderr
    reversed_ = audit(stack_home, "--from", "2026-02-01", "--to", "2026-01-01")
    assert reversed_.returncode == 2


def test_a_row_that_was_changed_is_repaired(api: Api, stack: Connection, stack_home: Path) -> None:
    database = stack.databases["aggregator"]
    before = api.usage("R_SUM")
    of_sum = BUCKETS_OF.format(key="R_SUM")
    sql(database, f"UPDATE usage_buckets SET amount_sum = amount_sum + 1 {of_sum}")
    assert api.usage("R_SUM") != before
    wait_for("the repair", lambda: api.usage("R_SUM") == before, REPAIR_S)
    wait_for(
        "the record of it",
        lambda: sql(
            database,
            "SELECT 1 FROM reconciliation_differences WHERE metric = 'R_SUM' "
            "AND repair_time IS NOT NULL",
        ),
        REPAIR_S,
    )
    assert audit(stack_home, "--metric=R_SUM").returncode == 0


def test_a_deliberate_bug_that_counts_batches_twice_is_made_good(
    tmp_path: Path, prepared_home: Path
) -> None:
    environ = {faults.NAME: Fault.INBOX_OFF, faults.ALLOWED: "1", "USAGEFLOW_RECONCILE": "true"}
    copy_home(prepared_home, tmp_path)
    with running_stack(tmp_path, environ=environ) as connection:
        api = Api(connection.http, connection.api_key)
        for _ in range(3):
            assert api.track(new_key()).status_code == 200
        # The metric defines itself with the first event, a moment after the answer.
        wait_for("usage", lambda: int(api.usage_or_none() or 0) >= 3, 30)
        redelivered = asyncio.run(Redelivery(connection.nats)(random.Random(1)))
        assert redelivered > 0
        database = connection.databases["aggregator"]
        found = "SELECT counted_count FROM reconciliation_differences WHERE repair_time IS NOT NULL"
        wait_for("a difference that was repaired", lambda: sql(database, found), REPAIR_S)
        wait_for("the repair", lambda: api.usage() == "3", REPAIR_S)
        assert all(int(str(count)) > 3 for (count,) in sql(database, found))
        assert audit(tmp_path).returncode == 0
