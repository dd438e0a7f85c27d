import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from anyshape.buckets import call_shapes, contains
from anyshape.costs import CostTable
from anyshape.packing import POLICIES, Call, fifo, one_by_one, pack, per_bucket, total_cost

DATA = Path(__file__).parent / "data"
ROUNDING = 1 + 1e-9


def exhaustive(sizes, costs):
    """The least seconds over every partition of the items, by trying them all."""
    call_cost = {}

    def cost(group):
        if group not in call_cost:
            enclosing = tuple(map(max, zip(*(sizes[i] for i in group))))
            call_cost[group] = float("inf")
            if len(group) <= costs.largest_batch:
                shapes = [bucket for bucket in costs.buckets if contains(bucket, enclosing)]
                if costs.interpolate_sizes:
                    shapes = [enclosing]
                options = [costs.cost(shape, costs.fit(len(group))) for shape in shapes]
                call_cost[group] = min(options, default=float("inf"))
        return call_cost[group]

    def least(item, groups):
        if item == len(sizes):
            return sum(map(cost, groups))
        alone = least(item + 1, [*groups, (item,)])
        joined = [
            least(item + 1, [*groups[:k], (*groups[k], item), *groups[k + 1 :]]) for k in range(len(groups))
        ]
        return min([alone, *joined])

    return least(0, [])


@st.composite
def batches(draw, sides, max_items, interpolate_sizes=False):
    """Some sizes, and a table of any seconds at all whose buckets contain them."""
    bucket = st.tuples(*[st.integers(1, 12)] * sides)
    buckets = draw(st.lists(bucket, min_size=1, max_size=6, unique=True))
    batch_sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True))
    seconds = st.one_of(st.integers(1, 6).map(float), st.floats(0.01, 10))
    largest_call = draw(st.none() | st.integers(1, 500))
    costs = CostTable(
        {shape: draw(seconds) for shape in call_shapes(buckets, batch_sizes, largest_call)},
        draw(st.booleans()),
        interpolate_sizes,
    )
    size = st.sampled_from(buckets).flatmap(lambda b: st.tuples(*[st.integers(1, side) for side in b]))
    return draw(st.lists(size, min_size=1, max_size=max_items)), costs


def check_calls(calls, sizes, costs):
    """Every item once, in order, in a call that holds it, of a shape that was compiled."""
    assert sorted(i for call in calls for i in call.items) == list(range(len(sizes)))
    for call in calls:
        assert call.items
        assert list(call.items) == sorted(call.items)
        assert call.batch_size == costs.fit(len(call.items))
        assert costs.cost(call.bucket, call.batch_size) < float("inf")
        assert all(contains(call.bucket, sizes[i]) for i in call.items)
        if costs.interpolate_sizes:
            assert call.bucket == costs.run_as(tuple(map(max, zip(*(sizes[i] for i in call.items)))))
        else:
            assert call.bucket in costs.buckets


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("interpolate_sizes", [False, True])
@pytest.mark.parametrize("sides", [1, 2])
def test_every_item_runs_once_in_a_call_that_holds_it(policy, interpolate_sizes, sides):
    @given(batches(sides, 40, interpolate_sizes))
    @settings(deadline=None, max_examples=60)
    def holds(batch):
        sizes, costs = batch
        check_calls(POLICIES[policy](sizes, costs), sizes, costs)

    holds()


@pytest.mark.parametrize("interpolate_sizes", [False, True])
@pytest.mark.parametrize("sides", [1, 2])
def test_never_costlier_than_any_other_policy(interpolate_sizes, sides):
    @given(batches(sides, 40, interpolate_sizes))
    @settings(deadline=None, max_examples=150)
    def holds(batch):
        sizes, costs = batch
        packed = total_cost(pack(sizes, costs), costs)
        for policy in (one_by_one, per_bucket, fifo):
            assert packed <= total_cost(policy(sizes, costs), costs) * ROUNDING

    holds()


@given(batches(sides=1, max_items=8))
@settings(deadline=None, max_examples=200)
def test_no_partition_is_cheaper_in_one_dimension(batch):
    sizes, costs = batch
    assert total_cost(pack(sizes, costs), costs) == pytest.approx(exhaustive(sizes, costs))


@given(batches(sides=2, max_items=8))
@settings(deadline=None, max_examples=200)
def test_no_partition_is_cheaper_in_two_dimensions_for_few_items(batch):
    sizes, costs = batch
    assert total_cost(pack(sizes, costs), costs) == pytest.approx(exhaustive(sizes, costs))


@pytest.mark.parametrize("sides", [1, 2])
def test_no_partition_is_cheaper_with_dynamic_shapes(sides):
    @given(batches(sides, 7, interpolate_sizes=True))
    @settings(deadline=None, max_examples=100)
    def holds(batch):
        sizes, costs = batch
        assert total_cost(pack(sizes, costs), costs) == pytest.approx(exhaustive(sizes, costs))

    holds()


@given(batches(sides=1, max_items=40), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_arrival_does_not_change_the_cost(batch, rng):
    sizes, costs = batch
    shuffled = rng.sample(sizes, len(sizes))
    assert total_cost(pack(sizes, costs), costs) == pytest.approx(total_cost(pack(shuffled, costs), costs))


def least_by_integer_programme(sizes, costs):
    """The least seconds, for fixed batch sizes: how many items of each kind go to each bucket, and
    how many calls of each batch size it makes."""
    kinds = Counter(tuple(contains(b, size) for b in costs.buckets) for size in sizes)
    per_kind, per_call = len(costs.buckets), len(costs.batch_sizes)
    calls_from = len(kinds) * per_kind
    columns = calls_from + per_kind * per_call
    seconds = np.zeros(columns)
    upper = np.full(columns, len(sizes))
    rows, low, high = [], [], []
    for k, (fits, count) in enumerate(kinds.items()):
        row = np.zeros(columns)
        row[k * per_kind : (k + 1) * per_kind] = 1
        upper[k * per_kind : (k + 1) * per_kind] *= np.array(fits)
        rows, low, high = [*rows, row], [*low, count], [*high, count]
    for b, bucket in enumerate(costs.buckets):
        row = np.zeros(columns)
        row[b:calls_from:per_kind] = -1
        for s, size in enumerate(costs.batch_sizes):
            row[calls_from + b * per_call + s] = size
            seconds[calls_from + b * per_call + s] = costs.cost(bucket, size)
        rows, low, high = [*rows, row], [*low, 0], [*high, np.inf]
    solved = milp(
        seconds,
        constraints=LinearConstraint(np.array(rows), low, high),
        integrality=np.ones(columns),
        bounds=Bounds(0, upper),
        options={"mip_rel_gap": 1e-4},
    )
    assert solved.success
    return solved.fun


@pytest.mark.parametrize("seed", range(8))
def test_real_picture_sizes_come_close_to_the_optimum(seed):
    """No guarantee beyond 8 items in two dimensions, so it is watched on COCO's sizes."""
    counts = json.loads((DATA / "coco_val2017_sizes.json").read_text())
    rng = random.Random(seed)
    sizes = rng.choices([(h, w) for w, h, _ in counts], [c for *_, c in counts], k=32)
    buckets = [(375, 500), (500, 375), (428, 640), (481, 640), (640, 428), (640, 481), (640, 640)]
    costs = CostTable(
        {
            ((h, w), n): (2.0 + 1e-5 * h * w * n**0.95) * rng.uniform(0.95, 1.1)
            for h, w in buckets
            for n in (1, 2, 4, 8, 16)
        }
    )
    least = least_by_integer_programme(sizes, costs)
    packed = total_cost(pack(sizes, costs), costs)
    assert least * (1 - 1e-3) <= packed <= least * 1.05


def test_the_integer_programme_agrees_with_trying_everything():
    costs = CostTable.by_volume(call_shapes([(5, 8), (8, 5), (8, 8)], [1, 4]))
    sizes = [(5, 8), (8, 5), (4, 4), (3, 8), (8, 8), (2, 2), (5, 5)]
    assert least_by_integer_programme(sizes, costs) == pytest.approx(exhaustive(sizes, costs))


@pytest.mark.parametrize("policy", POLICIES)
def test_lengths_go_to_their_own_buckets(policy):
    costs = CostTable.by_volume(call_shapes([(64,), (128,)], [1]))
    calls = POLICIES[policy]([(55,), (112,)], costs)
    assert set(calls) == {Call((64,), 1, (0,)), Call((128,), 1, (1,))}


def test_an_exact_fit_stays_in_its_bucket():
    costs = CostTable({((64,), 1): 2.0, ((128,), 1): 1.0})  # noise
    assert pack([(64,)], costs) == [Call((64,), 1, (0,))]


def test_a_short_item_rides_in_a_spare_row():
    costs = CostTable({((64,), 1): 1.0, ((64,), 4): 3.0, ((128,), 1): 2.0, ((128,), 4): 4.0})
    assert pack([(100,), (30,), (120,), (90,)], costs) == [Call((128,), 4, (0, 1, 2, 3))]
    assert len(per_bucket([(100,), (30,), (120,), (90,)], costs)) == 2


def test_a_lone_long_item_does_not_drag_the_short_ones_along():
    costs = CostTable.by_volume(call_shapes([(32,), (512,)], [1, 4, 8]))
    calls = pack([(20,), (500,), (31,), (8,), (30,)], costs)
    assert set(calls) == {Call((512,), 1, (1,)), Call((32,), 4, (0, 2, 3, 4))}
    assert fifo([(20,), (500,), (31,), (8,), (30,)], costs) == [Call((512,), 8, (0, 1, 2, 3, 4))]


def test_rows_of_a_call_are_as_many_as_its_bucket_takes():
    costs = CostTable.by_volume(call_shapes([(32,), (64,)], [1, 2, 4], largest_call=128))
    items = [(60,), (20,), (20,), (20,), (20,), (60,), (60,)]
    for policy in (pack, per_bucket):
        found = sorted((call.bucket, len(call.items)) for call in policy(items, costs))
        assert found == [((32,), 4), ((64,), 1), ((64,), 2)], policy
    assert [call.items for call in fifo(items, costs)] == [(0, 1), (2, 3, 4), (5, 6)]


def test_what_exceeds_the_largest_batch_is_split():
    costs = CostTable.by_volume(call_shapes([(64,)], [1, 4]))
    sizes = [(10,)] * 9
    assert [call.items for call in fifo(sizes, costs)] == [(0, 1, 2, 3), (4, 5, 6, 7), (8,)]
    assert [call.items for call in per_bucket(sizes, costs)] == [(0, 1, 2, 3), (4, 5, 6, 7), (8,)]
    assert Counter(call.batch_size for call in pack(sizes, costs)) == {4: 2, 1: 1}
    assert len(one_by_one(sizes, costs)) == 9


SQUARES = [(500, 500), (600, 600), (700, 700), (800, 800)]


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((640, 640), (700, 700)), ((440, 540), (600, 600)), ((500, 500), (500, 500))],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_a_picture_goes_to_the_smallest_square_that_holds_it(policy, size, bucket):
    costs = CostTable.by_volume(call_shapes(SQUARES, [1, 4]))
    assert POLICIES[policy]([size], costs) == [Call(bucket, 1, (0,))]


def test_a_bimodal_batch_runs_in_two_calls_where_the_shapes_differ_enough():
    costs = CostTable.by_volume(call_shapes([(540, 540), (720, 720), (800, 800)], [1, 2, 4]))
    sizes = [(540, 540), (720, 720), (540, 540), (800, 800), (540, 540), (720, 720), (540, 540)]
    calls = pack(sizes, costs)
    assert total_cost(calls, costs) == pytest.approx(exhaustive(sizes, costs))
    assert Call((540, 540), 4, (0, 2, 4, 6)) in calls
    assert {i for call in calls if call.bucket != (540, 540) for i in call.items} == {1, 3, 5}


@pytest.mark.parametrize("policy", POLICIES)
def test_height_and_width_are_not_mixed_up(policy):
    costs = CostTable.by_volume(call_shapes([(500, 800), (800, 500)], [1, 4]))
    assert POLICIES[policy]([(450, 780)], costs) == [Call((500, 800), 1, (0,))]
    assert POLICIES[policy]([(780, 450)], costs) == [Call((800, 500), 1, (0,))]


def test_pictures_that_no_bucket_holds_together_run_apart_even_in_order():
    costs = CostTable.by_volume(call_shapes([(500, 800), (800, 500)], [1, 4]))
    sizes = [(450, 780), (480, 700), (780, 450), (400, 400)]
    assert [call.items for call in fifo(sizes, costs)] == [(0, 1), (2, 3)]
    check_calls(pack(sizes, costs), sizes, costs)


def test_calls_that_must_be_made_anyway_carry_the_rest():
    """No contiguous grouping finds this one: only the search over all of them."""
    costs = CostTable({((1, 8), 4): 8.0, ((5, 5), 4): 1.0, ((6, 7), 4): 8.0})
    sizes = [(2, 5), (2, 2), (2, 5), (1, 2), (5, 7), (1, 8)]
    calls = pack(sizes, costs)
    assert sorted(call.bucket for call in calls) == [(1, 8), (6, 7)]
    assert total_cost(calls, costs) == 16.0


def test_moves_fill_spare_rows_that_no_order_shows():
    costs = CostTable({((1, 7), 3): 6.0, ((3, 5), 3): 4.0, ((6, 6), 3): 4.0})
    sizes = [(1, 5), (1, 4), (2, 3), (1, 7), (1, 6), (4, 5), (2, 1), (2, 1), (1, 4)]
    calls = pack(sizes, costs)
    check_calls(calls, sizes, costs)
    assert total_cost(calls, costs) == exhaustive(sizes, costs) == 14.0


def test_dynamic_shapes_take_the_longest_item_as_their_shape():
    costs = CostTable.by_volume(call_shapes([(64,), (128,)], [1, 4]), dynamic_batch=True)
    costs = CostTable.of(costs.rows(), dynamic_batch=True, interpolate_sizes=True)
    calls = pack([(100,), (97,), (99,)], costs)
    assert calls == [Call((100,), 3, (0, 1, 2))]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("length", "run"), [(1, 1), (31, 31), (32, 32), (33, 34), (65, 68), (101, 104), (129, 136), (293, 300)]
)
def test_dynamic_shapes_are_run_in_steps(policy, length, run):
    costs = CostTable.by_volume(call_shapes([(64,), (300,)], [1, 4]), dynamic_batch=True)
    costs = CostTable.of(costs.rows(), dynamic_batch=True, interpolate_sizes=True)
    assert POLICIES[policy]([(length,)], costs) == [Call((run,), 1, (0,))]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("interpolate_sizes", [False, True])
def test_an_item_that_fits_nowhere_is_named(policy, interpolate_sizes):
    costs = CostTable({((64,), 1): 1.0, ((128,), 1): 2.0}, interpolate_sizes=interpolate_sizes)
    with pytest.raises(ValueError, match=r"size \(129,\) fits no bucket"):
        POLICIES[policy]([(5,), (129,)], costs)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_items_no_calls(policy):
    assert POLICIES[policy]([], CostTable.by_volume(call_shapes([(64,)], [1]))) == []
