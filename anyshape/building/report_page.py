"""The page that `anyshape report` writes: report.html.j2 filled with what an archive says.

The template escapes every value; the drawn plan alone is put in as it is.
"""

from __future__ import annotations

import io
from collections import defaultdict
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError
from markupsafe import Markup

from anyshape.buckets import Bucket, bucket_name, by_size, parse_bucket
from anyshape.building.errors import BuildError
from anyshape.building.packed import Packed
from anyshape.building.planning.errors import PlanError
from anyshape.building.planning.plan import PlanResult

CostRow = Tuple[str, List[Optional[Dict[str, float]]]]  # a bucket's name and its cells, None where unmeasured


def page(packed: Packed) -> str:
    """The whole page. Raises BuildError if buckets.json lacks something that every archive has."""
    environment = Environment(
        loader=PackageLoader("anyshape.building", ""), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["bucket"] = lambda value: bucket_name(parse_bucket(value))
    index = packed.index
    try:
        plan = PlanResult.from_json(index["plan"]) if index.get("plan") else None
        titles, costs = _costs(index.get("costs") or [])
        return environment.get_template("report.html.j2").render(
            packed=packed,
            index={**index, "tolerance": float(index["tolerance"])},
            facts=_facts(index),
            cost_titles=titles,
            costs=costs,
            plan=plan,
            picture=_picture(plan) if plan else "",
        )
    except (KeyError, TypeError, ValueError, PlanError, TemplateError) as error:
        raise BuildError(f"buckets.json is not readable ({error!r}): build the archive again") from error


def _facts(index: Mapping[str, Any]) -> Dict[str, Any]:
    rows = ", ".join(str(size) for size in index["batch_sizes"])
    versions = index.get("versions", {}).items()
    return {
        "task": index["task"],
        "backend": index["backend"],
        "number type": index["dtype"],
        "rows per call": f"any up to {max(index['batch_sizes'])}" if index["dynamic_batch"] else rows,
        "positions per call": f"at most {index['largest_call']}" if index.get("largest_call") else "",
        "weights": f"{index['weights']:,}" if index.get("weights") else "",
        "inputs": ", ".join(f"{spec['name']} ({spec['dtype']})" for spec in index.get("inputs", [])),
        "compiled with": ", ".join(f"{name} {version}" for name, version in versions),
    }


def _costs(table: Sequence[Mapping[str, Any]]) -> Tuple[List[str], List[CostRow]]:
    """Column titles, and rows of milliseconds per call; the darker a cell, the more a row of it costs."""
    seconds: Dict[Bucket, Dict[int, float]] = defaultdict(dict)
    for row in table:
        seconds[parse_bucket(row["bucket"])][int(row["batch_size"])] = float(row["seconds"])
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
