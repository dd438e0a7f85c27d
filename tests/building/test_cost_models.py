from __future__ import annotations

import numpy as np
import pytest

from anyshape.building.planning.cost_models import AreaCost, FlopsCost, MeasuredCost
from anyshape.building.planning.errors import PlanError
from anyshape.costs import CostRow


def shapes(*values):
    return np.array(values, dtype=np.int64)


def row(bucket, seconds, batch_size=1):
    return CostRow(bucket=tuple(bucket), batch_size=batch_size, seconds=seconds)


def test_area_counts_positions():
    assert AreaCost()(shapes([128])).tolist() == [128]
    assert AreaCost()(shapes([3, 4], [5, 5])).tolist() == [12, 25]


def test_flops_of_one_layer():
    # 8·L·d² + 16·L·d² + 4·L²·d with L = 2, d = 3
    assert FlopsCost(hidden_size=3)(shapes([2])).tolist() == [24 * 2 * 9 + 4 * 4 * 3]
    with pytest.raises(PlanError, match="hidden-size"):
        FlopsCost(hidden_size=0)


def test_measured_takes_the_best_batch_size_and_interpolates():
    cost = MeasuredCost([row([100], 0.010), row([100], 0.016, 4), row([300], 0.012)])
    assert cost(shapes([100], [200], [300])) == pytest.approx([0.004, 0.008, 0.012])


def test_measured_outside_its_range():
    cost = MeasuredCost([row([100], 0.004), row([300], 0.006)])
    assert cost(shapes([1], [500])) == pytest.approx([0.00301, 0.008])
    steep = MeasuredCost([row([100], 0.001), row([300], 0.009)])
    assert steep(shapes([50])) == pytest.approx([0.0005])  # never below the line to the origin
    assert MeasuredCost([row([10, 10], 0.01)])(shapes([5, 10], [20, 10])) == pytest.approx([0.005, 0.02])


def test_measured_never_falls():
    cost = MeasuredCost([row([100], 0.01), row([200], 0.008), row([300], 0.02)])
    values = cost(np.arange(1, 500, dtype=np.int64)[:, None])
    assert (np.diff(values) >= 0).all()
    assert (values > 0).all()


def test_a_table_that_is_empty():
    with pytest.raises(PlanError, match="empty"):
        MeasuredCost([])
