import os

import pytest

from benchmarks.memory import peak_rss_mb, size_kb, tree_pss_mb

SMAPS_ROLLUP = """\
5600-7fff ---p 00000000 00:00 0                          [rollup]
Rss:               14000 kB
Pss:                9123 kB
Pss_Anon:           8000 kB
"""


def test_a_size_is_found_by_its_whole_name() -> None:
    assert size_kb(SMAPS_ROLLUP, "Pss") == 9123
    with pytest.raises(ValueError, match="no line Swap"):
        size_kb(SMAPS_ROLLUP, "Swap")


def test_this_process_uses_memory() -> None:
    own_mb = tree_pss_mb(os.getpid())
    assert own_mb > 1
    assert peak_rss_mb(os.getpid()) > 1
