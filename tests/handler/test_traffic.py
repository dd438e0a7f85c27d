from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import traffic
from handler.traffic import Traffic


def worker(folder: Path, pid: int, monkeypatch: pytest.MonkeyPatch, sides: int = 1) -> Traffic:
    """What another worker of the same model would write to."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: pid)
        return Traffic(folder, sides)


@given(st.lists(st.lists(st.integers(1, 20).map(lambda n: (n,)), max_size=5), max_size=5))
def test_every_item_is_counted(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int]]]
) -> None:
    seen = Traffic(tmp_path_factory.mktemp("traffic"), 1)
    for batch in batches:
        seen.record(batch)
    counts = Counter(size for batch in batches for size in batch)
    assert seen.seen() == [(list(size), count) for size, count in sorted(counts.items())]


def test_pictures_are_counted_by_both_sides(tmp_path: Path) -> None:
    seen = Traffic(tmp_path, 2)
    seen.record([(500, 600), (600, 500), (500, 600)])
    assert seen.seen() == [([500, 600], 2), ([600, 500], 1)]


def test_any_worker_tells_what_all_have_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = worker(tmp_path, 1, monkeypatch), worker(tmp_path, 2, monkeypatch)
    one.record([(3,), (5,)])
    other.record([(5,), (7,)])
    assert one.seen() == other.seen() == [([3], 1), ([5], 2), ([7], 1)]


def test_a_restarted_worker_keeps_what_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker(tmp_path, 1, monkeypatch).record([(3,)])
    again = worker(tmp_path, 2, monkeypatch)
    again.record([(4,)])
    assert again.seen() == [([3], 1), ([4], 1)]


def test_a_worker_that_gets_the_same_process_number_again_keeps_what_was_seen(tmp_path: Path) -> None:
    Traffic(tmp_path, 1).record([(3,)])
    again = Traffic(tmp_path, 1)
    again.record([(3,), (4,)])
    assert again.seen() == [([3], 2), ([4], 1)]


def test_the_time_is_that_of_the_first_worker(tmp_path: Path) -> None:
    first = Traffic(tmp_path, 1)
    since = first.since()
    Traffic(tmp_path, 1)
    (tmp_path / "seen-1764493200000000000-7.i64").touch()  # 2025-11-30 09:00
    assert since.startswith("20")
    assert first.since() == "2025-11-30T09:00:00Z"


@pytest.mark.parametrize("size", [0, 5, 24])
def test_a_file_that_another_worker_is_just_making_is_no_trouble(size: int, tmp_path: Path) -> None:
    seen = Traffic(tmp_path, 1)
    seen.record([(3,)])
    (tmp_path / "seen-1-1.i64").write_bytes(bytes(size))
    assert seen.seen() == [([3], 1)]


def test_new_sizes_are_rounded_once_the_exact_rows_are_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "ROWS", 3)
    seen = Traffic(tmp_path, 1)
    seen.record([(10,), (11,), (12,), (2,)])
    assert seen.seen() == [([10], 1), ([11], 1), ([12], 1), ([64], 1)]


def test_memory_is_bounded_and_no_item_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "ROWS", 3)
    monkeypatch.setattr(traffic, "COARSE_ROWS", 3)
    seen = Traffic(tmp_path, 1)
    seen.record([(n,) for n in (1, 2, 3)])  # exact
    seen.record([(n,) for n in (10, 60, 65, 128)])  # rounded up to 64 and 128
    seen.record([(n,) for n in (200, 900, 300, 1, 2, 60)])  # full: as large as the largest
    assert seen.seen() == [([1], 2), ([2], 2), ([3], 1), ([64], 3), ([128], 2), ([960], 3)]
    assert len(seen._places) <= 6
