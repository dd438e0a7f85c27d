"""The page that `anyshape report` writes: report.html.j2 filled with what an archive says.

The template escapes every value; the drawn plan alone is put in as it is.
"""

from __future__ import annotations

import io
from collections import defaultdict
from typing import Dict, List, Optional, Sequence, Tuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from anyshape.archive import Index, Packed
from anyshape.buckets import Bucket, bucket_name, by_size
from anyshape.building.planning.plan import PlanResult
from anyshape.costs import CostRow

CostCells = Tuple[str, List[Optional[Dict[str, float]]]]  # a bucket's name; None: not measured


def page(packed: Packed) -> str:
    """The whole page. Raises PlanError if the plan in buckets.json cannot be read."""
    environment = Environment(
        loader=PackageLoader("anyshape.building", ""), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["bucket"] = bucket_name
    index = packed.index
    plan = PlanResult.from_json(index.plan) if index.plan else None
    titles, costs = _costs(index.costs)
    return environment.get_template("report.html.j2").render(
        packed=packed,
        index=index,
        facts=_facts(index),
        cost_titles=titles,
        costs=costs,
        plan=plan,
        picture=_picture(plan) if plan else "",
    )


def _facts(index: Index) -> Dict[str, str]:
    rows = ", ".join(str(size) for size in index.batch_sizes)
    return {
        "task": index.task,
        "backend": index.backend,
        "number type": index.dtype,
        "rows per call": f"any up to {max(index.batch_sizes)}" if index.dynamic_batch else rows,
        "positions per call": f"at most {index.largest_call}" if index.largest_call else "",
        "weights": f"{index.weights:,}" if index.weights else "",
        "inputs": ", ".join(f"{spec.name} ({spec.dtype})" for spec in index.inputs),
        "compiled with": ", ".join(f"{name} {version}" for name, version in index.versions.items()),
    }


def _costs(table: Sequence[CostRow]) -> Tuple[List[str], List[CostCells]]:
    """Column titles, and rows of milliseconds per call; the darker a cell, the more a row of it costs."""
    seconds: Dict[Bucket, Dict[int, float]] = defaultdict(dict)
    for row in table:
        seconds[row.bucket][row.batch_size] = row.seconds
    sizes = sorted({size for measured in seconds.values() for size in measured})
    most = max((value / size for found in seconds.values() for size, value in found.items()), default=0.0)

    def cell(value: Optional[float], size: int) -> Optional[Dict[str, float]]:
        if value is None:
            return None
        return {"milliseconds": value * 1000, "shade": 0.5 * value / size / most}

    rows = [
        (bucket_name(bucket), [cell(seconds[bucket].get(size), size) for size in sizes])
        for bucket in sorted(seconds, key=by_size)
    ]
    return ["bucket", *(f"{size} row{'s' * (size != 1)}" for size in sizes)], rows


def _picture(plan: PlanResult) -> Markup:
    """The plan drawn as SVG; its text is drawn by matplotlib as paths, or escaped by it."""
    import matplotlib  # heavy, and only an archive with a plan needs it

    from anyshape.building.planning.plot import plan_figure

    written = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "plan"}):
        plan_figure(plan).savefig(written, format="svg", metadata={"Date": None})
    picture = written.getvalue()
    described = f'<svg role="img" aria-label="{len(plan.buckets)} buckets over the distribution, and waste" '
    return Markup(described + picture[picture.index("<svg") + len("<svg ") :])
