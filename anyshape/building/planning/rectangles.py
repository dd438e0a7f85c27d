"""The search for the best set of rectangles (height, width): the two-dimensional half of planning.

Choosing K rectangles for a distribution of sizes is a facility location problem. An optimal
rectangle is tight, as high as the highest of its items and as wide as the widest, so the candidates
are the pairs of observed heights and widths (*lines*), each rounded up to the alignment; the pair
of the two maxima is always chosen, so that whatever fits the lines fits the plan.

Greedy adds the candidate that saves most (saving is monotone submodular, so greedy is within 1 −
1/e of the most that can be saved: Nemhauser, Wolsey, Fisher, Mathematical Programming 14, 1978);
then one rectangle is swapped for another while that helps (Arya et al., "Local search heuristics
for k-median and facility location problems", SIAM J. Comput. 33, 2004), from several starts with a
fixed seed. What every candidate would save is computed for all of them at once: the items of each
chosen rectangle are summed into a table over the lines (a summed-area table, Crow, SIGGRAPH 1984),
so one step costs O(K · lines²) however many sizes there are.
"""

from __future__ import annotations

from typing import Iterable, List, Sequence, Set, Tuple

import numpy as np
from numpy.typing import NDArray

from anyshape.building.planning.cost_models import Cost, Floats, Ints

Cell = Tuple[int, int]

COARSE_LINES = 48  # per side, where most of the searching happens
FINE_LINES = 320  # per side, for the last steps; where there are more, those around the plan are taken
THIN_LINES = 64  # per side, kept besides those around the plan
ROUNDS = 2  # of taking the lines around the plan and swapping among them
RESTARTS = 24
PROMISING = 3
SEED = 20240229


class Grid:
    """Sizes in the cells of a grid of lines; a cell is also the candidate at its upper corner.

    sizes: int (n, 2), aligned; weights: float (n,) item counts; rows, columns: the sorted lines,
    whose last ones are not below any size.
    """

    def __init__(self, sizes: Ints, weights: Floats, rows: Ints, columns: Ints, cost: Cost) -> None:
        self.rows, self.columns = rows, columns
        self.row = np.searchsorted(rows, sizes[:, 0])
        self.column = np.searchsorted(columns, sizes[:, 1])
        cells = self.row * len(columns) + self.column
        used, inverse = np.unique(cells, return_inverse=True)
        self.row, self.column = used // len(columns), used % len(columns)
        self.weights: Floats = np.bincount(inverse, weights=weights).astype(np.float64)
        corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
        self.cost: Floats = cost(corners.reshape(-1, 2)).reshape(len(rows), len(columns))
        self.top: Cell = (len(rows) - 1, len(columns) - 1)

    def item_costs(self, chosen: Sequence[Cell]) -> Tuple[Floats, NDArray[np.intp]]:
        """Each item's least cost, and the place in `chosen` of the rectangle that gives it."""
        table = np.full((len(chosen), len(self.weights)), np.inf)
        for place, (row, column) in enumerate(chosen):
            table[place, (self.row <= row) & (self.column <= column)] = self.cost[row, column]
        best = table.argmin(axis=0)
        return table[best, np.arange(len(self.weights))], best

    def total(self, chosen: Sequence[Cell]) -> float:
        return float(self.item_costs(chosen)[0] @ self.weights)

    def savings(self, chosen: Sequence[Cell]) -> Tuple[float, Floats]:
        """The total cost of `chosen`, and what each candidate would save if it were added."""
        costs, owner = self.item_costs(chosen)
        saved = np.zeros_like(self.cost)
        for place, (row, column) in enumerate(chosen):
            mine = owner == place
            if not mine.any():
                continue
            inside = np.zeros((row + 1, column + 1))
            inside[self.row[mine], self.column[mine]] = self.weights[mine]
            counts = np.cumsum(np.cumsum(inside, axis=0), axis=1)
            gain = self.cost[row, column] - self.cost
            np.maximum(gain, 0.0, out=gain)
            # Beyond its own side a rectangle has no more items: the last row and column go on.
            gain[: row + 1, : column + 1] *= counts
            gain[row + 1 :, : column + 1] *= counts[-1]
            gain[: row + 1, column + 1 :] *= counts[:, -1:]
            gain[row + 1 :, column + 1 :] = 0.0
            saved += gain
        return float(costs @ self.weights), saved

    def add(self, chosen: Sequence[Cell]) -> List[Cell]:
        """`chosen` and the candidate that saves most, if any saves anything."""
        _, saved = self.savings(chosen)
        best = int(saved.argmax())
        if saved.flat[best] <= 0:
            return list(chosen)
        return [*chosen, divmod(best, len(self.columns))]

    def swap(self, chosen: Sequence[Cell]) -> List[Cell]:
        """Exchange one rectangle (never the largest) for another while the total falls."""
        current, total = list(chosen), self.total(chosen)
        while True:
            best_total, best = total, None
            for out in current:
                if out == self.top:
                    continue
                rest = [cell for cell in current if cell != out]
                base, saved = self.savings(rest)
                place = int(saved.argmax())
                if base - saved.flat[place] < best_total * (1 - 1e-12):
                    best_total = base - float(saved.flat[place])
                    best = [*rest, divmod(place, len(self.columns))]
            if best is None:
                return current
            current, total = best, self.total(best)

    def refine(self, chosen: Sequence[Cell], count: int) -> List[Cell]:
        """`chosen` without duplicates, filled up greedily to `count`, then swapped."""
        current = list(dict.fromkeys(chosen))
        while len(current) < count and len(grown := self.add(current)) > len(current):
            current = grown
        return self.swap(current)

    def shake(self, chosen: Sequence[Cell], random: np.random.Generator) -> List[Cell]:
        """Replace some rectangles, or all, by random ones, likelier the more they save; swap."""
        movable = [cell for cell in chosen if cell != self.top]
        drop = int(random.integers(1, len(movable) + 1))
        lost = {movable[i] for i in random.permutation(len(movable))[:drop]}
        current = [cell for cell in chosen if cell not in lost]
        while len(current) < len(chosen):
            _, saved = self.savings(current)
            if saved.max() <= 0:
                break
            chances = saved.ravel() / saved.sum()
            current.append(divmod(int(random.choice(saved.size, p=chances)), len(self.columns)))
        return self.swap(current)

    def cell(self, size: Tuple[int, int]) -> Cell:
        """The least candidate that contains `size`."""
        row = int(np.searchsorted(self.rows, size[0]))
        return min(row, self.top[0]), min(int(np.searchsorted(self.columns, size[1])), self.top[1])

    def sides(self, cells: Iterable[Cell]) -> List[Tuple[int, int]]:
        return [(int(self.rows[row]), int(self.columns[column])) for row, column in cells]


def best_rectangles(sizes: Ints, weights: Floats, count: int, cost: Cost) -> List[List[Tuple[int, int]]]:
    """The best plans found with at most 1, 2, ... `count` rectangles, the largest in each.

    sizes: int (n, 2), aligned; weights: float (n,). The same input gives the same plans.
    """
    coarse = _grid(sizes, weights, COARSE_LINES, cost)
    random = np.random.default_rng(SEED)
    plans = [coarse.sides([coarse.top])]
    rough = [coarse.top]
    for number in range(2, count + 1):
        rough = coarse.swap(coarse.add(rough))
        found = {frozenset(rough): coarse.total(rough)}
        for _ in range(RESTARTS if len(rough) > 1 else 0):
            other = coarse.shake(rough, random)
            found[frozenset(other)] = coarse.total(other)
            if found[frozenset(other)] < found[frozenset(rough)]:
                rough = other
        # What looks best on the coarse grid need not be best on the fine one: the next ones go on too.
        promising = sorted(found, key=lambda plan: (found[plan], sorted(plan)))[:PROMISING]
        starts = [coarse.sides(sorted(plan)) for plan in promising] + [plans[-1]]
        for _ in range(ROUNDS):
            around = [side for start in starts for side in start]
            rows, columns = (
                lines_around(sizes[:, axis], weights, [side[axis] for side in around]) for axis in (0, 1)
            )
            fine = Grid(sizes, weights, rows, columns, cost)
            refined = [fine.refine([fine.cell(side) for side in start], number) for start in starts]
            best = min(refined, key=lambda plan: fine.total(plan))
            starts = [tighten(sizes, fine.sides(best), cost)]
        plans.append(starts[0])
    return plans


def tighten(sizes: Ints, rectangles: Sequence[Tuple[int, int]], cost: Cost) -> List[Tuple[int, int]]:
    """Shrink each rectangle but the largest to the items it serves; drop those without any."""
    corners = np.array(rectangles, dtype=np.int64)
    inside = (sizes[:, None, :] <= corners[None, :, :]).all(axis=2)
    owner = np.where(inside, cost(corners)[None, :], np.inf).argmin(axis=1)
    largest = max(rectangles)
    kept: Set[Tuple[int, int]] = {largest}
    for place, rectangle in enumerate(rectangles):
        mine = sizes[owner == place]
        if rectangle != largest and len(mine):
            kept.add((int(mine[:, 0].max()), int(mine[:, 1].max())))
    return sorted(kept)


def _grid(sizes: Ints, weights: Floats, limit: int, cost: Cost) -> Grid:
    rows, columns = (lines(sizes[:, axis], weights, limit) for axis in (0, 1))
    return Grid(sizes, weights, rows, columns, cost)


def lines(values: Ints, weights: Floats, limit: int) -> Ints:
    """At most `limit` distinct values, the largest too: half the commonest, half quantiles."""
    distinct, inverse = np.unique(values, return_inverse=True)
    if len(distinct) <= limit:
        return distinct
    mass = np.bincount(inverse, weights=weights)
    commonest = np.argsort(-mass, kind="stable")[: limit // 2]
    work = np.cumsum(mass * distinct)  # not the count alone: the large ones cost most
    levels = np.linspace(0, work[-1], limit - limit // 2 + 1)[1:]
    quantiles = np.searchsorted(work * (1 + 1e-12), levels)
    quantiles = np.minimum(quantiles, len(distinct) - 1)
    kept: Ints = distinct[np.unique([*commonest, *quantiles, len(distinct) - 1])]
    return kept


def lines_around(values: Ints, weights: Floats, sides: Sequence[int]) -> Ints:
    """All distinct values if they are few; else some of them all over and those around `sides`."""
    distinct = np.unique(values)
    if len(distinct) <= FINE_LINES:
        return distinct
    places = np.searchsorted(distinct, sides)
    steps = 2 ** np.arange(max(1, (len(distinct) // THIN_LINES).bit_length()))
    near = np.clip(places[:, None] + np.concatenate([-steps, [0], steps])[None, :], 0, len(distinct) - 1)
    around: Ints = np.union1d(distinct[near.ravel()], lines(values, weights, THIN_LINES))
    return around
