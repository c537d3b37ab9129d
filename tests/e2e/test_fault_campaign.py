"""`make chaos`, the short version: whatever breaks, no acknowledged event is lost or doubled."""

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from tests.chaos.campaign import Plan, run
from tests.conftest import TOLD_AT_THE_END

SEED = int(os.environ.get("USAGEFLOW_CHAOS_SEED") or 1 + secrets.randbelow(1_000_000))
DURATION_S = 60 * float(os.environ.get("USAGEFLOW_CHAOS_MINUTES") or 3)
# Starting and stopping, and every wait of the campaign at its longest.
AROUND_S = 600

pytestmark = pytest.mark.chaos


@pytest.mark.timeout(DURATION_S + AROUND_S)
def test_no_acknowledged_event_is_lost_or_doubled_whatever_breaks(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property(TOLD_AT_THE_END, f"make chaos SEED={SEED} MINUTES={DURATION_S / 60:g}")
    result = asyncio.run(run(Plan(SEED, DURATION_S), tmp_path, Console()))
    record_property(TOLD_AT_THE_END, str(result))
    assert result.findings.texts == []
    assert result.ok
    assert result.kills > 0
