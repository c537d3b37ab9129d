"""A filter in a file answers as one in memory does, and takes no memory between look-ups."""

import random
from pathlib import Path

import pytest

from services.ingest.key_filter import HashedIds, KeyFilter
from services.ingest.paged_filter import MemoryFilter, PagedFilter

KEYS = 200_000


def filled() -> tuple[KeyFilter, HashedIds]:
    """A filter, and ids of which it has some."""
    chance = random.Random(7)
    known = chance.randbytes(16 * KEYS)
    key_filter = KeyFilter.for_keys(KEYS)
    key_filter.add(HashedIds(known))
    return key_filter, HashedIds(known[: 16 * 5_000] + chance.randbytes(16 * 5_000))


def of_mappings(inode: int, field: str) -> list[list[str]]:
    """What Linux says of each mapping of a file into this process."""
    found, counts = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            counts = words[4] == str(inode)
        elif counts and words[0] == f"{field}:":
            found.append(words[1:])
    return found


def resident_bytes(inode: int) -> int:
    return sum(int(size) * 1024 for size, _unit in of_mappings(inode, "Rss"))


def mapped_inodes() -> set[int]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {int(line.split()[4]) for line in lines}


def test_it_finds_what_a_filter_in_memory_finds(tmp_path: Path) -> None:
    key_filter, ids = filled()
    paged = PagedFilter(key_filter.to_bytes(), str(tmp_path))
    expected = key_filter.find(ids).tolist()
    assert paged.find(ids).tolist() == expected
    assert paged.page_out()
    for _ in range(2):
        assert paged.find(ids).tolist() == expected


def test_paged_out_it_takes_no_memory_between_look_ups(tmp_path: Path) -> None:
    key_filter, ids = filled()
    others = mapped_inodes()
    paged = PagedFilter(key_filter.to_bytes(), str(tmp_path))
    [inode] = mapped_inodes() - others
    paged.find(ids)
    assert resident_bytes(inode) == pytest.approx(paged.size_bytes, rel=0.1)
    assert paged.resident_bytes == paged.size_bytes == key_filter.size_bytes
    paged.page_out()
    paged.find(ids)
    assert (resident_bytes(inode), paged.resident_bytes) == (0, 0)


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="a kernel without huge pages"
)
def test_read_again_from_disk_its_pages_come_in_large_pieces(tmp_path: Path) -> None:
    others = mapped_inodes()
    paged = PagedFilter(filled()[0].to_bytes(), str(tmp_path))
    [inode] = mapped_inodes() - others
    [flags] = of_mappings(inode, "VmFlags")
    assert "hg" in flags
    assert paged.size_bytes


def test_its_file_has_no_name(tmp_path: Path) -> None:
    paged = PagedFilter(filled()[0].to_bytes(), str(tmp_path))
    assert paged.size_bytes
    assert list(tmp_path.iterdir()) == []


def test_where_no_file_can_be_written_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        PagedFilter(filled()[0].to_bytes(), str(tmp_path / "missing"))


def test_one_in_memory_stays_there() -> None:
    key_filter, ids = filled()
    held = MemoryFilter(key_filter.to_bytes())
    assert not held.page_out()
    assert held.resident_bytes == held.size_bytes == key_filter.size_bytes
    assert held.find(ids).tolist() == key_filter.find(ids).tolist()
