from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyshape.buckets import call_shapes, choose, contains
from anyshape.costs import CostRow, CostTable, rounded

MEASURED = {
    ((64,), 1): 0.010,
    ((64,), 4): 0.030,
    ((128,), 1): 0.018,
    ((128,), 4): 0.060,
}


@st.composite
def noisy_tables(draw, sides=2):
    """Any measured seconds at all, consistent with each other or not."""
    bucket = st.tuples(*[st.integers(1, 20)] * sides)
    buckets = draw(st.lists(bucket, min_size=1, max_size=6, unique=True))
    batch_sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True))
    seconds = st.floats(1e-4, 10)
    largest_call = draw(st.none() | st.integers(1, 2000))
    return CostTable(
        {shape: draw(seconds) for shape in call_shapes(buckets, batch_sizes, largest_call)},
        dynamic_batch=draw(st.booleans()),
    )


def test_knows_what_was_measured():
    costs = CostTable(MEASURED)
    assert costs.buckets == ((64,), (128,))
    assert costs.batch_sizes == (1, 4)
    assert costs.largest_batch == 4
    assert {key: costs.cost(*key) for key in MEASURED} == MEASURED


def test_items_run_at_the_smallest_compiled_batch_size_that_holds_them():
    costs = CostTable(MEASURED)
    assert [costs.fit(n) for n in (1, 2, 3, 4)] == [1, 4, 4, 4]
    assert costs.cost((64,), 3) == 0.030


def test_a_dynamic_batch_runs_at_its_own_size_and_costs_what_lies_on_the_line():
    costs = CostTable(MEASURED, dynamic_batch=True)
    assert [costs.fit(n) for n in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert costs.cost((128,), 2) == pytest.approx(0.018 + (0.060 - 0.018) / 3)
    assert costs.cost((128,), 3) == pytest.approx(0.018 + (0.060 - 0.018) * 2 / 3)


def test_below_the_smallest_measured_batch_size_its_cost_holds():
    costs = CostTable({((64,), 4): 0.03, ((64,), 8): 0.05}, dynamic_batch=True)
    assert costs.cost((64,), 1) == 0.03
    assert costs.per_call((64,)) == 0.03


@pytest.mark.parametrize("n", [0, -1, 5])
@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_a_call_takes_no_more_than_the_largest_batch_size(n, dynamic_batch):
    costs = CostTable(MEASURED, dynamic_batch)
    with pytest.raises(ValueError, match="one call takes 1 to 4 items"):
        costs.fit(n)
    with pytest.raises(ValueError, match="one call takes 1 to 4 items"):
        costs.cost((64,), n)


def test_an_unknown_bucket_has_no_cost():
    with pytest.raises(ValueError, match=r"bucket \(96,\) has no measured cost"):
        CostTable(MEASURED).cost((96,), 1)


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        ({}, "at least one bucket"),
        ({((64,), 1): 0.1, ((128,), 4): 0.2}, r"bucket \(64,\) was not measured at batch size 4"),
        ({((64,), 4): 0.1, ((128,), 1): 0.2, ((128,), 4): 0.2}, r"\(64,\) was not measured at batch size 1"),
        ({((64,), 1): 0.0}, "is no cost"),
        ({((64,), 1): float("nan")}, "is no cost"),
        ({((64,), 1): float("inf")}, "is no cost"),
        ({((64,), 0): 0.1}, "is no cost"),
        ({((64,), 1): 0.1, ((64, 64), 1): 0.2}, "all buckets have one side"),
    ],
)
def test_a_table_with_holes_or_nonsense_is_refused(seconds, message):
    with pytest.raises(ValueError, match=message):
        CostTable(seconds)


def test_a_large_bucket_may_take_fewer_rows():
    costs = CostTable({((64,), 1): 0.1, ((64,), 4): 0.3, ((128,), 1): 0.2})
    assert costs.most_rows == {(64,): 4, (128,): 1}
    assert costs.cost((64,), 3) == 0.3
    assert costs.cost((128,), 2) == float("inf")
    assert [row.batch_size for row in costs.rows()] == [1, 4, 1]


def test_a_dynamic_batch_ends_where_its_bucket_was_measured_last():
    costs = CostTable({((64,), 1): 0.1, ((64,), 3): 0.3, ((128,), 1): 0.2}, True, True)
    assert costs.cost((64,), 2) == pytest.approx(0.2)
    assert costs.row(costs.need((100,)))[1:] == [pytest.approx(0.1 + 0.1 * 36 / 64), *[float("inf")] * 2]


def test_noise_takes_the_seconds_of_the_smaller_shape():
    costs = CostTable({((64,), 1): 0.012, ((64,), 4): 0.030, ((128,), 1): 0.011, ((128,), 4): 0.009})
    assert costs.cost((128,), 1) == 0.012
    assert costs.cost((128,), 4) == 0.030


def test_buckets_side_by_side_keep_their_own_seconds():
    costs = CostTable({((500, 800), 1): 0.2, ((800, 500), 1): 0.1})
    assert costs.choose_cost == {(500, 800): 0.2, (800, 500): 0.1}


@given(noisy_tables())
@settings(deadline=None)
def test_costs_are_monotone_whatever_was_measured(costs):
    for bucket in costs.buckets:
        row = [costs.cost(bucket, n) for n in range(1, costs.largest_batch + 1)]
        assert row == sorted(row)
        for inner in costs.buckets:
            if contains(bucket, inner):
                for n in range(1, costs.largest_batch + 1):
                    assert costs.cost(inner, n) <= costs.cost(bucket, n)


@given(noisy_tables())
@settings(deadline=None)
def test_an_exact_fit_uses_its_own_bucket(costs):
    for bucket in costs.buckets:
        assert choose(bucket, costs.buckets, costs.choose_cost) == bucket
        assert costs.cheapest(bucket) == bucket


@given(noisy_tables())
@settings(deadline=None)
def test_json_brings_back_what_was_measured(costs):
    written = msgspec.json.encode(costs.rows())
    again = CostTable.of(msgspec.json.decode(written, type=list[CostRow]), costs.dynamic_batch)
    assert again.rows() == costs.rows()
    for bucket in costs.buckets:
        for n in range(1, costs.largest_batch + 1):
            assert again.cost(bucket, n) == costs.cost(bucket, n)


def test_json_is_a_list_of_single_timings_untouched_by_the_smoothing():
    measured = {((64,), 1): 0.012, ((128,), 1): 0.011}
    assert json.loads(msgspec.json.encode(CostTable(measured).rows())) == [
        {"bucket": [64], "batch_size": 1, "seconds": 0.012},
        {"bucket": [128], "batch_size": 1, "seconds": 0.011},
    ]


def test_the_model_by_volume_prefers_small_buckets_and_shared_calls():
    costs = CostTable.by_volume(call_shapes([(64,), (128,)], [1, 4]))
    assert costs.cost((64,), 1) < costs.cost((128,), 1)
    assert costs.cost((64,), 4) < 4 * costs.cost((64,), 1)
    assert costs.cost((128,), 1) / costs.cost((64,), 1) == pytest.approx((64 + 128) / (64 + 64))


def test_dynamic_shapes_cost_what_lies_on_the_line():
    costs = CostTable(MEASURED, interpolate_sizes=True)
    assert costs.cost((96,), 1) == pytest.approx(0.014)
    assert costs.cost((96,), 2) == pytest.approx(0.045)
    assert costs.cost((10,), 1) == 0.010
    assert costs.shape(costs.need((96,)), 2) == (96,)


def test_dynamic_shapes_are_run_in_steps_of_a_sixteenth_at_most():
    for side in range(1, 5000):
        run = rounded(side)
        assert side <= run <= max(31, side * 17 / 16)
        assert rounded(run) == run <= rounded(side + 1)
    assert len({rounded(side) for side in range(1, 513)}) == 31 + 4 * 16 + 1
    costs = CostTable(MEASURED, interpolate_sizes=True)
    assert costs.need((97,)) == (100,)
    assert costs.need((127,)) == (128,)


def test_no_shape_is_larger_than_the_largest_bucket():
    costs = CostTable({((301,), 1): 1.0}, interpolate_sizes=True)
    assert [costs.need((length,)) for length in (256, 273, 300, 301)] == [(256,), (288,), (301,), (301,)]


def test_a_dynamic_shape_as_high_as_one_bucket_and_wide_as_another_costs_more_than_both():
    costs = CostTable({((500, 800), 1): 0.1, ((800, 500), 1): 0.12}, interpolate_sizes=True)
    assert costs.cost((800, 800), 1) == pytest.approx(0.12 * 800 / 500)


@pytest.mark.parametrize("interpolate_sizes", [False, True])
def test_a_size_that_fits_nowhere_is_named(interpolate_sizes):
    costs = CostTable(MEASURED, interpolate_sizes=interpolate_sizes)
    with pytest.raises(ValueError, match=r"size \(129,\) fits no bucket"):
        costs.need((129,))
    with pytest.raises(ValueError, match=r"size \(129,\) fits no bucket"):
        costs.cheapest((129,))


@given(noisy_tables(sides=1), st.integers(1, 40))
@settings(deadline=None)
def test_running_items_of_one_bucket_alone_never_costs_less_than_its_parts_say(costs, n):
    bucket = costs.buckets[-1]
    seconds, last = costs.alone(bucket, n)
    for count in range(1, n + 1):
        splits = [
            seconds[count - k] + costs.cost(bucket, k) for k in range(1, min(count, costs.largest_batch) + 1)
        ]
        assert seconds[count] == pytest.approx(min(splits))
        assert seconds[count] == seconds[count - last[count]] + costs.cost(bucket, last[count])


def test_rounding_between_measured_sizes_keeps_costs_monotone():
    """Three rows: a line from less to the same seconds ended up a bit above the other."""
    seconds = {((1,), 1): 0.246, ((1,), 4): 5.813, ((2,), 1): 0.972, ((2,), 4): 5.813}
    costs = CostTable(seconds, dynamic_batch=True)
    assert all(costs.cost((1,), n) <= costs.cost((2,), n) for n in range(1, 5))
