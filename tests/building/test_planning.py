"""Plans against brute force, against every policy, and on two real distributions."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyshape.building.planning.cost_models import AreaCost, FlopsCost, MeasuredCost
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.optimum import exact_rectangles
from anyshape.building.planning.plan import (
    PlanResult,
    knee,
    make_plan,
    memory_bucket_limit,
    neuron_bucket_limit,
    plan_buckets,
    plan_lengths,
    plan_sizes,
    plan_waste,
)
from anyshape.costs import CostRow
from anyshape.errors import ConfigError
from anyshape.recipe import Recipe
from tests.quick import quick

DATA = Path(__file__).parent.parent / "data"
COSTS = {
    "area": AreaCost(),
    "flops": FlopsCost(hidden_size=64),
    "measured": MeasuredCost(
        [CostRow(bucket=(4,), seconds=0.01), CostRow(bucket=(30,), batch_size=2, seconds=0.1)]
    ),
}
lengths = st.dictionaries(st.integers(1, 60), st.integers(1, 50), min_size=1, max_size=8)
sides = st.integers(1, 12)
sizes = st.dictionaries(st.tuples(sides, sides), st.integers(1, 50), min_size=1, max_size=7)


@pytest.fixture(scope="module")
def mrpc():
    pair = json.loads((DATA / "mrpc_test_token_lengths.json").read_text())["pair"]
    return {(length,): count for length, count in enumerate(pair) if count}


@pytest.fixture(scope="module")
def coco():
    entries = json.loads((DATA / "coco_val2017_sizes.json").read_text())
    return {(height, width): count for width, height, count in entries}


def least(histogram, candidates, count, cost):
    """The least waste of any set of at most `count` candidates that holds the maximum of each side."""
    top = tuple(max(side) for side in zip(*candidates))
    others = [candidate for candidate in candidates if candidate != top]
    plans = (
        [top, *rest]
        for number in range(min(count - 1, len(others)) + 1)
        for rest in itertools.combinations(others, number)
    )
    return min(plan_waste(histogram, plan, cost) for plan in plans)


@settings(max_examples=150, deadline=None)
@given(lengths, st.integers(1, 5), st.integers(1, 9), st.sampled_from(sorted(COSTS)))
def test_lengths_equal_brute_force(histogram, count, align, cost_name):
    cost = COSTS[cost_name]
    as_sizes = {(length,): items for length, items in histogram.items()}
    candidates = sorted({(-(-length // align) * align,) for length in histogram})
    buckets = plan_lengths(histogram, count, cost, align)
    assert len(buckets) <= count
    assert all(bucket[0] % align == 0 for bucket in buckets)
    waste = plan_waste(as_sizes, buckets, cost)
    assert waste == pytest.approx(least(as_sizes, candidates, count, cost), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(1, 4), st.integers(1, 4))
def test_sizes_are_within_two_percent_of_brute_force(histogram, count, align):
    up = [tuple(-(-side // align) * align for side in size) for size in histogram]
    candidates = sorted(set(itertools.product({size[0] for size in up}, {size[1] for size in up})))
    if len(candidates) > 25:
        candidates = [
            candidate
            for candidate in candidates
            if any(size[0] == candidate[0] and size[1] <= candidate[1] for size in up)
            and any(size[1] == candidate[1] and size[0] <= candidate[0] for size in up)
        ] + [tuple(max(side) for side in zip(*up))]
    best = least(histogram, sorted(set(candidates)), count, AreaCost())
    assert plan_waste(histogram, plan_sizes(histogram, count, align=align)) <= best * 1.02
    exact = plan_sizes(histogram, count, align=align, exact=True)
    assert plan_waste(histogram, exact) == pytest.approx(best, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.one_of(lengths.map(lambda h: {(k,): v for k, v in h.items()}), sizes), st.integers(1, 6))
def test_no_policy_is_better(histogram, count):
    plan = make_plan(histogram, count)
    assert plan.waste <= min(plan.alternatives.values()) * (1 + 1e-9)
    assert plan.waste >= 1
    wastes = [waste for _, waste in plan.curve]
    assert all(after <= before * (1 + 1e-9) for before, after in itertools.pairwise(wastes))


@pytest.mark.parametrize("seed", quick(range(3), 0))
def test_sizes_are_within_two_percent_of_the_proved_optimum(seed):
    random = np.random.default_rng(seed)
    long = random.choice([20, 25, 32], size=150)
    short = (long * random.uniform(0.5, 1, size=150)).astype(int)
    turned = random.random(150) < 0.4
    pictures = np.where(turned[:, None], np.stack([long, short], 1), np.stack([short, long], 1))
    distinct, counts = np.unique(pictures, axis=0, return_counts=True)
    histogram = {(int(h), int(w)): int(n) for (h, w), n in zip(distinct, counts)}
    plan = make_plan(histogram, 5)
    start = [(32, 32)]
    best, whole = exact_rectangles(distinct, counts.astype(float), 5, AreaCost(), start, limit=40)
    assert whole
    assert plan.waste <= plan_waste(histogram, best) * 1.02


@pytest.mark.parametrize(("count", "waste"), [(2, 1.355), (3, 1.216), (4, 1.149), (6, 1.089), (8, 1.062)])
def test_mrpc_pairs(mrpc, count, waste):
    assert make_plan(mrpc, count).waste == pytest.approx(waste, abs=5e-4)


def test_mrpc_pairs_against_the_application_note(mrpc):
    assert plan_waste(mrpc, [(128,)]) == pytest.approx(2.42, abs=5e-3)
    assert plan_waste(mrpc, [(64,), (128,)]) == pytest.approx(1.45, abs=5e-3)
    assert plan_lengths({length: count for (length,), count in mrpc.items()}, 2) == [(65,), (104,)]
    assert make_plan(mrpc, 4).buckets == [(46,), (60,), (74,), (104,)]


def test_coco_sizes(coco):
    plan = make_plan(coco, 4)
    assert plan.buckets == [(428, 640), (481, 640), (640, 481), (640, 640)]
    curve = dict(plan.curve)
    reference = {1: 1.496, 2: 1.240, 3: 1.157, 4: 1.107, 6: 1.059, 9: 1.036}
    for count, waste in reference.items():
        assert curve[count] <= waste + 5e-4


def test_exact_on_a_coarse_grid_is_no_worse_than_the_search(coco):
    searched, exact = make_plan(coco, 5, align=32), make_plan(coco, 5, align=32, exact=True)
    assert exact.waste <= searched.waste
    assert searched.waste <= exact.waste * 1.02
    assert any("optimum over all sides" in note for note in exact.notes)


def test_a_plan_holds_the_maximum_of_each_side():
    assert (300, 900) in plan_sizes({(300, 100): 5, (50, 900): 1}, 3)
    assert (320, 928) in plan_sizes({(300, 100): 5, (50, 900): 1}, 3, align=32)


def test_more_buckets_than_lengths():
    plan = make_plan({(5,): 1, (9,): 2}, 7)
    assert plan.buckets == [(5,), (9,)]
    assert plan.waste == 1
    assert len(plan.curve) == 2


def test_a_plan_is_cut_to_the_memory(mrpc):
    plan = make_plan(mrpc, 6, limit=3)
    assert len(plan.buckets) == 3
    assert plan.waste == pytest.approx(1.216, abs=5e-4)
    assert "cut to the best 3" in plan.notes[0]
    assert make_plan(mrpc, 3, limit=3).notes == []


def test_auto_takes_the_knee_within_the_memory(mrpc):
    assert len(make_plan(mrpc, "auto").buckets) == make_plan(mrpc, 2).knee == 4
    assert len(make_plan(mrpc, "auto", limit=2).buckets) == 2


def test_the_knee():
    assert knee([(1, 10.0), (2, 2.0), (3, 1.9), (4, 1.8)]) == 2
    assert knee([(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]) == 4  # each saves as much as the last
    assert knee([(1, 2.0), (2, 1.9), (3, 1.0)]) == 3  # the saving comes at the end
    assert knee([(1, 1.0)]) == 1
    assert knee([(1, 1.0), (2, 1.0)]) == 1


def test_the_application_notes_formula():
    assert neuron_bucket_limit(110_000_000) == 9  # BERT-base
    assert neuron_bucket_limit(25_600_000) == 39  # ResNet-50
    assert neuron_bucket_limit(110_000_000, memory=4_000_000_000) == 18
    assert neuron_bucket_limit(7_000_000_000) == 1


def test_memory_is_counted_for_every_worker():
    assert memory_bucket_limit(2_000_000_000, 92_000_000) == 21
    assert memory_bucket_limit(2_000_000_000, 92_000_000, workers=2) == 10
    with pytest.raises(PlanError, match="--memory-limit"):
        memory_bucket_limit(100_000_000, 92_000_000, workers=2)


def planned(spec):
    """What a recipe with these `buckets` gets."""
    recipe = Recipe.from_mapping({"handler": {"task": "t", "model": "m", "buckets": spec}})
    return plan_buckets(recipe.handler.buckets, DATA)


def test_a_recipe_plans_at_build_time(tmp_path, mrpc):
    plan = planned({"plan": "mrpc_test_token_lengths.json", "count": 4, "field": "pair"})
    assert plan.buckets == [(46,), (60,), (74,), (104,)]
    kept = json.loads(json.dumps(plan.to_json()))
    assert kept["waste"] == pytest.approx(1.149, abs=5e-4)
    assert kept["cost"] == "area"
    assert sum(count for _, count in kept["histogram"]) == 1725
    assert kept["histogram"][0] == [[19], 1]
    assert PlanResult.from_json(kept).to_json() == kept
    with pytest.raises(PlanError, match="build again"):
        PlanResult.from_json({"buckets": []})


def test_a_recipe_plans_sizes_aligned():
    plan = planned({"plan": "coco_val2017_sizes.json", "count": 3, "align": 32, "width_first": True})
    assert plan.buckets == [(480, 640), (640, 480), (640, 640)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"count": 4}, "plan"),
        ({"plan": "mrpc_test_token_lengths.json", "cuont": 4}, "cuont"),
        ({"plan": "missing.json"}, "cannot read"),
        ({"plan": "mrpc_test_token_lengths.json", "field": "pair", "count": 0}, "positive"),
        ({"plan": "mrpc_test_token_lengths.json", "field": "pair", "count": "few"}, "auto"),
        ({"plan": "mrpc_test_token_lengths.json", "field": "pair", "align": 0}, "align"),
        ({"plan": "coco_val2017_sizes.json", "width_first": "no"}, "width_first.*true or false.*'no'"),
        ({"plan": "coco_val2017_sizes.json", "exact": "no"}, "exact.*true or false.*'no'"),
        ({"plan": "mrpc_test_token_lengths.json", "field": ["pair"]}, "field.*name of a histogram.*pair"),
        ({"plan": 5}, "plan.*name of a file.*5"),
        ({"plan": "coco_val2017_sizes.json", "tokenizer": 5}, "tokenizer.*text"),
    ],
)
def test_a_recipe_with_a_mistake(spec, message):
    with pytest.raises(ConfigError, match=message):
        planned(spec)


@pytest.mark.parametrize(
    "histogram", [{}, {(5,): 0}, {(5,): 1, (5, 6): 1}, {(0,): 1}, {(5,): -1}, {(10**30,): 1}, {(5,): 10**400}]
)
def test_a_histogram_that_cannot_be(histogram):
    with pytest.raises(PlanError):
        make_plan(histogram, 2)


def test_a_size_beyond_every_bucket():
    with pytest.raises(PlanError, match=r"\(9,\)"):
        plan_waste({(9,): 1}, [(8,)])
