from __future__ import annotations

import itertools
import random

import pytest

from anyshape.buckets import contains
from anyshape.building.planning.cost_models import MeasuredCost
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.plan import plan_waste
from anyshape.building.tuning import outermost, tune
from anyshape.costs import CostRow


@pytest.mark.parametrize("seed", range(8))
def test_no_other_buckets_with_the_same_largest_waste_less(seed: int) -> None:
    draw = random.Random(seed)
    seen = {(draw.randint(1, 30),): draw.randint(1, 50) for _ in range(12)}
    tuned = tune(seen, [(16,), (32,), (64,)])
    others = itertools.combinations([size for size in seen if size != (64,)], 2)
    best = min(plan_waste(seen, [*pair, (64,)]) for pair in others)
    assert tuned.plan.buckets[-1] == (64,)
    assert len(tuned.plan.buckets) <= 3
    assert tuned.waste == pytest.approx(best)
    assert tuned.positions == pytest.approx([tuned.present, tuned.waste])
    assert tuned.saving == pytest.approx(1 - tuned.waste / tuned.present)
    assert tuned.plan.histogram == seen


def test_what_was_taken_before_is_taken_afterwards() -> None:
    present = [(100, 100), (200, 400), (400, 200)]
    tuned = tune({(90, 90): 50, (180, 120): 70, (999, 999): 3}, present)
    for bucket in outermost(present):
        assert any(contains(planned, bucket) for planned in tuned.plan.buckets)
    assert tuned.plan.histogram == {(90, 90): 50, (180, 120): 70}, "what fits nowhere is not planned for"


def test_a_plan_that_gains_nothing_is_the_present_one() -> None:
    tuned = tune({(8,): 5, (16,): 5}, [(8,), (16,)])
    assert (tuned.plan.buckets, tuned.saving) == ([(8,), (16,)], 0.0)


def test_by_measured_seconds() -> None:
    seconds = {(4,): 0.001, (8,): 0.0011, (64,): 0.1}
    table = [CostRow(bucket=bucket, batch_size=1, seconds=each) for bucket, each in seconds.items()]
    tuned = tune({(3,): 9, (7,): 9}, [(64,), (60,)], cost=MeasuredCost(table))
    assert tuned.plan.cost == "measured"
    assert tuned.saving > 0.9


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(PlanError, match="nothing to plan from"):
        tune({(99,): 5}, [(8,)])
    with pytest.raises(PlanError, match="fewer than the 2 largest"):
        tune({(3, 3): 5}, [(8, 4), (4, 8)], count=1)
