"""Texts packed into rows: the least seconds, by trying everything where that can be done."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyshape.buckets import call_shapes
from anyshape.costs import CostTable
from anyshape.packing import Call, pack, total_cost
from anyshape.row_counts import RowCounts
from anyshape.row_packing import pack_rows
from benchmarks.serving.workloads import SHORT_LENGTHS

DATA = Path(__file__).parent / "data"
ROUNDING = 1 + 1e-9
Sizes = list[tuple[int]]


def exhaustive(sizes: Sizes, costs: CostTable, segments: int) -> float:
    """The least seconds over every way to share texts out to rows, and rows to calls, by trying them all."""

    def calls(fills: list[int]) -> float:
        """Over every partition of the rows: what each group costs in the cheapest length that holds it."""
        if not fills:
            return 0.0
        first, rest, least = fills[0], fills[1:], float("inf")
        for chosen in range(1 << len(rest)):
            group = [first, *(fill for i, fill in enumerate(rest) if chosen >> i & 1)]
            left = [fill for i, fill in enumerate(rest) if not chosen >> i & 1]
            if len(group) > costs.largest_batch:
                continue
            options = [costs.cost(b, costs.fit(len(group))) for b in costs.buckets if b[0] >= max(group)]
            least = min(least, min(options) + calls(left))
        return least

    def shared_out(item: int, rows: list[list[int]]) -> float:
        if item == len(sizes):
            return calls([sum(row) for row in rows])
        least = shared_out(item + 1, [*rows, [sizes[item][0]]])
        for k, row in enumerate(rows):
            if len(row) < segments and sum(row) + sizes[item][0] <= costs.buckets[-1][0]:
                more = [*row, sizes[item][0]]
                least = min(least, shared_out(item + 1, [*rows[:k], more, *rows[k + 1 :]]))
        return least

    return shared_out(0, [])


def least(sizes: Sizes, costs: CostTable, segments: int) -> float:
    """The seconds that no rows for these texts cost less than."""
    counts = RowCounts(costs, sorted((n for (n,) in sizes), reverse=True), segments)
    seconds, _ = next(counts.cheapest())
    assert seconds == counts.least
    return seconds


@st.composite
def batches(draw: Any, most: int) -> tuple[Sizes, CostTable, int]:
    """Some lengths, a table of any seconds at all whose rows hold them, and how many texts a row takes."""
    lengths = draw(st.lists(st.integers(1, 16).map(lambda n: (n,)), min_size=1, max_size=3, unique=True))
    batch_sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True))
    seconds = st.one_of(st.integers(1, 6).map(float), st.floats(0.01, 10))
    largest_call = draw(st.none() | st.integers(1, 60))
    shapes = call_shapes(lengths, batch_sizes, largest_call)
    costs = CostTable({shape: draw(seconds) for shape in shapes}, draw(st.booleans()))
    text = st.integers(1, max(lengths)[0]).map(lambda n: (n,))
    return draw(st.lists(text, min_size=1, max_size=most)), costs, draw(st.integers(1, 5))


def check_rows(calls: list[Call], sizes: Sizes, costs: CostTable, segments: int) -> None:
    """Every text once, in a row that holds it whole, in a call of a shape that was compiled."""
    assert sorted(i for call in calls for i in call.items) == list(range(len(sizes)))
    for call in calls:
        held = call.held or (1,) * len(call.items)
        assert sum(held) == len(call.items)
        assert call.batch_size == costs.fit(len(held))
        assert costs.cost(call.bucket, call.batch_size) < float("inf")
        texts = iter(call.items)
        for count in held:
            assert 1 <= count <= segments
            assert sum(sizes[next(texts)][0] for _ in range(count)) <= call.bucket[0]


@given(batches(most=5))
@settings(max_examples=150, deadline=None)
def test_few_texts_cost_the_least_that_any_rows_and_calls_do_and_no_less_than_the_bound(
    case: tuple[Sizes, CostTable, int],
) -> None:
    sizes, costs, segments = case
    calls = pack_rows(sizes, costs, segments)
    check_rows(calls, sizes, costs, segments)
    by_trying = exhaustive(sizes, costs, segments)
    assert total_cost(calls, costs) <= by_trying * ROUNDING
    assert least(sizes, costs, segments) <= by_trying * ROUNDING


@given(batches(most=40))
@settings(max_examples=150, deadline=None)
def test_many_texts_cost_no_more_than_a_row_each_and_no_less_than_the_bound(
    case: tuple[Sizes, CostTable, int],
) -> None:
    sizes, costs, segments = case
    calls = pack_rows(sizes, costs, segments)
    check_rows(calls, sizes, costs, segments)
    seconds = total_cost(calls, costs)
    assert seconds <= total_cost(pack(sizes, costs), costs) * ROUNDING
    assert seconds * ROUNDING >= least(sizes, costs, segments)


@given(batches(most=40))
@settings(max_examples=50, deadline=None)
def test_one_text_to_a_row_is_the_layout_of_items(case: tuple[Sizes, CostTable, int]) -> None:
    sizes, costs, _ = case
    alone = total_cost(pack_rows(sizes, costs, 1), costs)
    assert alone == pytest.approx(total_cost(pack(sizes, costs), costs))


def test_rows_come_cheapest_first() -> None:
    costs = CostTable({((4,), 1): 1.0, ((16,), 1): 3.5})
    found = list(islice(RowCounts(costs, [4, 3, 3, 2], 8).cheapest(), 4))
    assert found == [(3.5, [16]), (4.0, [4] * 4), (4.5, [16, 4]), (5.0, [4] * 5)]


@pytest.mark.parametrize(
    ("lengths", "segments", "rows"),
    [
        ([6, 5], 8, [16]),  # the longest texts need a long row
        ([9, 9], 8, [16, 16]),  # no two of them fit one
        ([2] * 6, 3, [4, 4, 4]),  # as many texts as rows take
        ([1] * 8, 2, [4] * 4),
        ([3, 3, 3], 8, [4, 4, 4]),  # a row of 4 holds 3 tokens of these texts
    ],
)
def test_rows_have_room_for_what_whole_texts_fill(lengths: list[int], segments: int, rows: list[int]) -> None:
    costs = CostTable({((4,), 1): 1.0, ((16,), 1): 9.0})
    _, found = next(RowCounts(costs, lengths, segments).cheapest())
    assert found == rows


def _short() -> Counter[int]:
    return Counter(SHORT_LENGTHS)


def _mrpc(field: str) -> Counter[int]:
    found = json.loads((DATA / "mrpc_test_token_lengths.json").read_text())[field]
    return Counter({length: count for length, count in enumerate(found) if count})


WORKLOADS = {"short": _short(), "sentences": _mrpc("single"), "pairs": _mrpc("pair")}
CALLS = {"one row": ([1], False), "one or eight": ([1, 8], False), "any number": (list(range(1, 33)), True)}


@pytest.mark.parametrize("calls", CALLS)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_deep_batches_of_real_lengths_cost_little_more_than_the_bound(workload: str, calls: str) -> None:
    """Seconds of a call: a fixed part, as large as 32 tokens, and its tokens; rows of 128 and 512."""
    batch_sizes, dynamic = CALLS[calls]
    shapes = call_shapes([(128,), (512,)], batch_sizes, 1024)
    costs = CostTable({(b, n): 32.0 + b[0] * n for b, n in shapes}, dynamic)
    draw, ratios = random.Random(0), []
    lengths, counts = zip(*WORKLOADS[workload].items())
    for _ in range(40):
        sizes = [(n,) for n in draw.choices(lengths, counts, k=32)]
        found = pack_rows(sizes, costs, 32)
        check_rows(found, sizes, costs, 32)
        ratios.append(total_cost(found, costs) / least(sizes, costs, 32))
    assert sum(ratios) / len(ratios) <= 1.02


def test_a_text_that_no_row_holds_is_an_error() -> None:
    with pytest.raises(ValueError, match="fits no row"):
        pack_rows([(5,)], CostTable({((4,), 1): 1.0}), 8)


def test_nothing_to_pack() -> None:
    assert pack_rows([], CostTable({((4,), 1): 1.0}), 8) == []


def test_texts_of_one_row_stand_in_the_batchs_order() -> None:
    (call,) = pack_rows([(2,), (5,), (3,)], CostTable({((16,), 1): 1.0}), 8)
    assert call == Call((16,), 1, (0, 1, 2), (3,))
    assert Counter(call.held) == {3: 1}


def test_texts_too_many_for_a_long_row_go_into_short_ones() -> None:
    """Rows of 512 would be full of texts long before they are full of tokens."""
    costs = CostTable({((n,), 1): 32.0 + n for n in (128, 512)})
    calls = pack_rows([(9,)] * 64, costs, 32)
    assert [call.bucket for call in calls] == [(128,)] * 5
