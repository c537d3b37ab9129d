import os
import time

import pytest

from benchmarks.processor import micros_by_part, seconds_by_part


def test_costs_are_told_by_event_most_first() -> None:
    before = {"gateway": 10.0, "ingest": 5.0, "notifier": 1.0}
    after = {"gateway": 10.5, "ingest": 6.0, "notifier": 1.0}
    micros = micros_by_part(before, after, events=10_000)
    assert list(micros) == ["ingest", "gateway"]
    assert micros == pytest.approx({"ingest": 100.0, "gateway": 50.0})


def test_what_a_process_computes_is_counted() -> None:
    pids = {"this": os.getpid()}
    before = seconds_by_part(pids)["this"]
    began = time.process_time()
    while time.process_time() - began < 0.1:
        pass
    assert seconds_by_part(pids)["this"] - before >= 0.05


def test_a_process_that_is_gone_used_nothing() -> None:
    assert seconds_by_part({"gone": 2**22 + 1}) == {"gone": 0.0}
