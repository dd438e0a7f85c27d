"""The best set of rectangles by mixed-integer programming: what `--exact` adds to the search."""

from __future__ import annotations

from typing import List, Sequence, Tuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_matrix

from anyshape.building.planning.cost_models import Cost, Floats, Ints
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.rectangles import Grid, lines, tighten

EXACT_LINES = 20  # per side: the coarse grid; HiGHS needs seconds for it and minutes for twice as many
TIME_LIMIT_SECONDS = 120.0


def exact_rectangles(
    sizes: Ints,
    weights: Floats,
    count: int,
    cost: Cost,
    start: Sequence[Tuple[int, int]],
    limit: int = EXACT_LINES,
) -> Tuple[List[Tuple[int, int]], bool]:
    """The optimum over a coarse grid that holds the sides of `start`: never worse than `start`.

    sizes: int (n, 2), aligned; weights: float (n,); start: a plan with at most `count` rectangles,
    the one of both maxima among them. Returns the plan, tightened, and whether the grid held every
    distinct side, in which case it is the optimum without reservation.

    The p-median formulation (ReVelle and Swain, Geographical Analysis 2, 1970): open(c) is 1 if
    rectangle c is chosen, serve(i, c) if it serves the sizes of cell i. Raises PlanError if HiGHS
    does not prove an optimum in time.
    """
    rows, columns = (
        np.union1d(lines(sizes[:, axis], weights, limit), [side[axis] for side in start]) for axis in (0, 1)
    )
    whole = all(len(kept) >= len(np.unique(sizes[:, axis])) for axis, kept in enumerate((rows, columns)))
    grid = Grid(sizes, weights, rows, columns, cost)
    candidates = _tight_candidates(grid)
    row, column = candidates[:, 0], candidates[:, 1]
    costs = grid.cost[row, column]
    top_cost = grid.cost[grid.top]
    serves = (
        (grid.row[:, None] <= row[None, :])
        & (grid.column[:, None] <= column[None, :])
        & ((costs < top_cost) | ((row == grid.top[0]) & (column == grid.top[1])))[None, :]
    )
    item, candidate = np.nonzero(serves)
    opens, pairs, items = len(candidates), len(item), len(grid.weights)
    serve = opens + np.arange(pairs)

    objective = np.concatenate([np.zeros(opens), grid.weights[item] * costs[candidate]])
    objective /= objective.max()
    served_once = coo_matrix((np.ones(pairs), (item, serve)), shape=(items, opens + pairs))
    only_if_open = coo_matrix(
        (
            np.concatenate([np.ones(pairs), -np.ones(pairs)]),
            (np.tile(np.arange(pairs), 2), np.concatenate([serve, candidate])),
        ),
        shape=(pairs, opens + pairs),
    )
    how_many = np.concatenate([np.ones(opens), np.zeros(pairs)])[None, :]
    lower = np.zeros(opens + pairs)
    lower[:opens][(row == grid.top[0]) & (column == grid.top[1])] = 1
    result = milp(
        objective,
        constraints=[
            LinearConstraint(served_once.tocsc(), 1, 1),
            LinearConstraint(only_if_open.tocsc(), -np.inf, 0),
            LinearConstraint(how_many, 0, count),
        ],
        # With the choice made, serving is a shortest-of problem: only `open` has to be whole.
        integrality=np.concatenate([np.ones(opens), np.zeros(pairs)]),
        bounds=Bounds(lower, 1),
        options={"time_limit": TIME_LIMIT_SECONDS, "mip_rel_gap": 1e-9},
    )
    if result.status != 0:
        raise PlanError(
            f"no proved optimum for {count} buckets in {TIME_LIMIT_SECONDS:.0f} s "
            f"({result.message}): plan without --exact, or with a larger --align"
        )
    chosen = candidates[np.flatnonzero(result.x[:opens] > 0.5)]
    return tighten(sizes, grid.sides([(int(r), int(c)) for r, c in chosen]), cost), whole


def _tight_candidates(grid: Grid) -> Ints:
    """Cells (row, column) that some items fill in both directions, and the largest: int (m, 2)."""
    present = np.zeros(grid.cost.shape, dtype=bool)
    present[grid.row, grid.column] = True
    row_reached = np.maximum.accumulate(present, axis=1)  # an item of this height, no wider
    column_reached = np.maximum.accumulate(present, axis=0)  # an item of this width, no higher
    tight = row_reached & column_reached
    tight[grid.top] = True
    return np.argwhere(tight)
