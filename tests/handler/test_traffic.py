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


def test_a_reset_starts_the_count_of_all_workers_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = worker(tmp_path, 1, monkeypatch), worker(tmp_path, 2, monkeypatch)
    one.record([(3,), (4,), (5,)])
    other.record([(6,), (7,)])
    one.reset()
    assert one.seen() == []
    other.record([(7,), (8,)])
    other.record([(6,)])
    one.record([(5,), (3,)])
    assert one.seen() == [([3], 1), ([5], 1), ([6], 1), ([7], 1), ([8], 1)]


def test_after_a_reset_new_sizes_are_counted_exactly_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "ROWS", 3)
    seen = Traffic(tmp_path, 1)
    seen.record([(1,), (2,), (3,)])
    seen.reset()
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
