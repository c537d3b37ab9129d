"""A second filter answers as one in memory does, however many ids it is asked for."""

import random
from pathlib import Path

import pytest

from services.ingest.key_filter import HashedIds, KeyFilter
from services.ingest.second_filter import READS_MAX, SecondFilter

KEYS = 20_000


def found(second: SecondFilter, ids: HashedIds) -> list[bool]:
    of_second = ids.for_second()
    answers: list[bool] = of_second.are_in(second.read(of_second.block_hashes.tolist())).tolist()
    return answers


@pytest.mark.parametrize("directory", [".", "missing"])
@pytest.mark.parametrize("count", [1, READS_MAX, READS_MAX + 1, 5_000])
def test_it_finds_what_a_filter_in_memory_finds(tmp_path: Path, directory: str, count: int) -> None:
    chance = random.Random(7)
    known = chance.randbytes(16 * KEYS)
    key_filter = KeyFilter.for_keys(KEYS)
    key_filter.add(HashedIds(known).for_second())
    second = SecondFilter(key_filter.to_bytes(), str(tmp_path / directory))
    ids = HashedIds(known[: 16 * count] + chance.randbytes(16 * count))
    answers = found(second, ids)
    assert all(answers[:count])
    expected = key_filter.find(ids.for_second()).tolist()
    assert [at for at, answer in enumerate(answers) if answer] == expected
    assert sum(answers[count:]) <= count / 50
    assert list(tmp_path.iterdir()) == []


def test_it_takes_memory_only_where_no_file_can_be_written(tmp_path: Path) -> None:
    stored = KeyFilter.for_keys(KEYS).to_bytes()
    assert SecondFilter(stored, str(tmp_path)).resident_bytes == 0
    held = SecondFilter(stored, str(tmp_path / "missing"))
    assert held.resident_bytes == held.size_bytes == len(stored)
