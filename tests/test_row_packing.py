"""Texts packed into rows: the least seconds, by trying everything where that can be done."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyshape.buckets import call_shapes
from anyshape.costs import CostTable
from anyshape.packing import Call, pack, total_cost
from anyshape.row_packing import Room, pack_rows

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
def test_few_texts_cost_the_least_that_any_rows_and_calls_do(case: tuple[Sizes, CostTable, int]) -> None:
    sizes, costs, segments = case
    calls = pack_rows(sizes, costs, segments)
    check_rows(calls, sizes, costs, segments)
    assert total_cost(calls, costs) <= exhaustive(sizes, costs, segments) * ROUNDING


@given(batches(most=40))
@settings(max_examples=150, deadline=None)
def test_many_texts_cost_no_more_than_a_row_each_and_no_less_than_their_room(
    case: tuple[Sizes, CostTable, int],
) -> None:
    sizes, costs, segments = case
    calls = pack_rows(sizes, costs, segments)
    check_rows(calls, sizes, costs, segments)
    seconds = total_cost(calls, costs)
    assert seconds <= total_cost(pack(sizes, costs), costs) * ROUNDING
    assert seconds * ROUNDING >= Room(costs).seconds(Room(costs).wanted([n for (n,) in sizes]))


@given(batches(most=40))
@settings(max_examples=50, deadline=None)
def test_one_text_to_a_row_is_the_layout_of_items(case: tuple[Sizes, CostTable, int]) -> None:
    sizes, costs, _ = case
    alone = total_cost(pack_rows(sizes, costs, 1), costs)
    assert alone == pytest.approx(total_cost(pack(sizes, costs), costs))


def test_the_room_of_a_number_of_tokens_is_worked_out_anew_for_each_table() -> None:
    one, other = (CostTable({((4,), 1): s, ((16,), 1): 10.0}) for s in (1.0, 9.0))
    assert Room.of(one).seconds([12, 0]) == 3.0
    assert Room.of(other).seconds([12, 0]) == 10.0
    assert Room.of(one).seconds([4, 5]) == 10.0
    assert Room.of(one) is Room.of(one)
    assert Room.of(one).rows([12, 0]) == [4, 4, 4]
    assert Room.of(one).rows([12, 6]) == [16, 4]


@pytest.mark.parametrize("depth", [32, 64])
def test_deep_batches_of_a_real_workload_cost_little_more_than_their_room(depth: int) -> None:
    """Test pairs of MRPC. Seconds of a call: a fixed part, as large as 16 tokens, and its tokens."""
    found = json.loads((DATA / "mrpc_test_token_lengths.json").read_text())["single"]
    lengths = [length for length, count in enumerate(found) for _ in range(count)]
    shapes = call_shapes([(128,), (256,)], list(range(1, 33)))
    costs = CostTable({(b, n): 16 + b[0] * n for b, n in shapes}, True)
    draw, room = random.Random(0), Room.of(costs)
    ratios = []
    for _ in range(40):
        sizes = [(draw.choice(lengths),) for _ in range(depth)]
        calls = pack_rows(sizes, costs, 32)
        check_rows(calls, sizes, costs, 32)
        ratios.append(total_cost(calls, costs) / room.seconds(room.wanted([n for (n,) in sizes])))
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
