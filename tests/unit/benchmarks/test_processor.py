import os
import subprocess
import sys

from benchmarks.processor import Meter, Used, tree_seconds


def test_costs_are_told_by_event_most_first() -> None:
    used = Used({"gateway": 50.0, "notifier": 0.2, "ingest": 100.04}, others_cores=0.5)
    assert str(used) == "us an event: ingest 100.0, gateway 50.0; others used 0.50 cores"


WORK = """
import sys, time
sys.stdin.readline()
while time.process_time() < 0.4:
    pass
print("done", flush=True)
sys.stdin.readline()
"""


def test_what_a_process_computes_is_its_own_cost() -> None:
    # A process of its own: this one may have children of other tests, which come and go.
    worker = subprocess.Popen(
        [sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        meter = Meter({"worker": worker.pid})
        worker.stdin.write("begin\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "done\n"
        used = meter.used(events=1_000)
    assert used.micros["worker"] >= 150
    assert 0 <= used.others_cores <= (os.cpu_count() or 1)


def test_a_process_that_is_gone_used_nothing() -> None:
    assert tree_seconds(2**22 + 1) == 0.0
