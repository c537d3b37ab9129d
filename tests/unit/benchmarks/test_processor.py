import os
import time

from benchmarks.processor import Meter, Used, tree_seconds


def test_costs_are_told_by_event_most_first() -> None:
    used = Used({"gateway": 50.0, "notifier": 0.2, "ingest": 100.04}, others_cores=0.5)
    assert str(used) == "us an event: ingest 100.0, gateway 50.0; others used 0.50 cores"


def test_what_a_process_computes_is_its_own_cost() -> None:
    meter = Meter({"this": os.getpid()})
    began = time.process_time()
    while time.process_time() - began < 0.2:
        pass
    used = meter.used(events=1_000)
    assert used.micros["this"] >= 150
    assert 0 <= used.others_cores <= (os.cpu_count() or 1)


def test_a_process_that_is_gone_used_nothing() -> None:
    assert tree_seconds(2**22 + 1) == 0.0
