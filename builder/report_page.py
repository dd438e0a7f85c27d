"""The page that `python -m builder report` writes: HTML, its style and its pictures in one string."""

from __future__ import annotations

import io
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

from builder.errors import BuildError
from builder.planning.errors import PlanError
from builder.planning.plan import PlanResult
from handler.buckets import Bucket, bucket_name, parse_bucket, volume

STYLE = """
:root { color-scheme: light dark; --ink: #22313f; --soft: #5d6d7c; --line: #d5dde5; --paper: #ffffff;
  --tint: 42, 157, 143; --bad: #c0392b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf0; --soft: #9fb0c0; --line: #3a4652; --paper: #151b21; --bad: #ff8a75; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .5rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
th { font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
code, pre { font: .88rem/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; padding: .8rem; }
figure { overflow-x: auto; margin: .8rem 0; background: #ffffff; border-radius: .5rem; padding: .6rem; }
figure svg { display: block; width: 100%; min-width: 46rem; height: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .8rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Archive:
    """What the page shows: `index` is buckets.json, `files` are (name, bytes)."""

    name: str
    version: str
    index: Mapping[str, Any]
    recipe: str
    files: Sequence[Tuple[str, int]]


def page(archive: Archive) -> str:
    """The whole page. Raises BuildError if buckets.json lacks something that every archive has."""
    try:
        parts = [
            _facts(archive),
            _buckets(archive.index),
            _costs(archive.index.get("costs") or []),
            _plan(archive.index.get("plan")),
            _recipe(archive.recipe),
            _files(archive.files),
        ]
    except (KeyError, TypeError, ValueError, PlanError) as error:
        raise BuildError(f"buckets.json is not readable ({error!r}): build the archive again") from error
    title = escape(archive.name)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # An empty icon, so that a browser does not ask for one.
        f'<link rel="icon" href="data:,">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _facts(archive: Archive) -> str:
    index = archive.index
    versions = ", ".join(f"{name} {version}" for name, version in index.get("versions", {}).items())
    rows = ", ".join(str(size) for size in index["batch_sizes"])
    facts = {
        "task": index["task"],
        "backend": index["backend"],
        "number type": index["dtype"],
        "rows per call": f"any up to {max(index['batch_sizes'])}" if index["dynamic_batch"] else rows,
        "positions per call": f"at most {index['largest_call']}" if index.get("largest_call") else "",
        "weights": f"{index['weights']:,}" if index.get("weights") else "",
        "inputs": ", ".join(f"{spec['name']} ({spec['dtype']})" for spec in index.get("inputs", [])),
        "compiled with": versions,
    }
    listed = "".join(f"<dt>{k}</dt><dd>{escape(str(v))}</dd>\n" for k, v in facts.items() if v)
    size = _size(sum(size for _, size in archive.files))
    return (
        f'<h1>{escape(archive.name)}</h1>\n<p class="soft">version {escape(archive.version)}, {size} '
        f"unpacked</p>\n<dl>{listed}</dl>\n"
    )


def _buckets(index: Mapping[str, Any]) -> str:
    tolerance = float(index["tolerance"])
    rows = []
    for entry in index["buckets"]:
        deviation = entry["deviation"]
        bad = deviation is None or deviation > tolerance
        shown = "not measured" if deviation is None else f"{deviation:.1e}"
        rows.append(
            [
                _cell(_name(entry["bucket"])),
                _cell(entry.get("batch_size") or "any"),
                _cell(shown, "bad" if bad else ""),
                _cell(f"{entry['compile_seconds']:.1f} s"),
                _cell(_size(entry["bytes"])),
                _cell(f"<code>{escape(entry['file'])}</code>", "text", raw=True),
            ]
        )
    head = ["bucket", "rows", "deviation", "compiled in", "adds", "file"]
    caption = (
        "Deviation: the largest difference from the unpadded model, relative to the output's largest "
        f"magnitude; this archive tolerates {tolerance:g}."
    )
    return f'<h2 id="buckets">Buckets</h2>\n{_table(head, rows, caption)}'


def _costs(table: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds per call; the darker a cell, the more a row of it costs."""
    if not table:
        return '<h2 id="costs">Cost of a call</h2>\n<p class="soft">Not measured when this was built.</p>\n'
    seconds: Dict[Bucket, Dict[int, float]] = defaultdict(dict)
    for row in table:
        seconds[parse_bucket(row["bucket"])][int(row["batch_size"])] = float(row["seconds"])
    sizes = sorted({size for measured in seconds.values() for size in measured})
    most = max(value / size for measured in seconds.values() for size, value in measured.items())
    rows = []
    for bucket in sorted(seconds, key=lambda b: (volume(b), b)):
        cells = [_cell(bucket_name(bucket))]
        for size in sizes:
            value = seconds[bucket].get(size)
            if value is None:
                cells.append(_cell(""))
                continue
            shade = f"background: rgba(var(--tint), {0.5 * value / size / most:.3f})"
            cells.append(_cell(f"{value * 1000:,.2f}", style=shade))
        rows.append(cells)
    head = ["bucket", *(f"{size} row{'s' * (size != 1)}" for size in sizes)]
    caption = "Milliseconds per call, as measured where this was built. Stronger colour: more per row."
    return f'<h2 id="costs">Cost of a call</h2>\n{_table(head, rows, caption)}'


def _plan(kept: Any) -> str:
    title = '<h2 id="plan">Expected waste</h2>\n'
    if not kept:
        return (
            f'{title}<p class="soft">The buckets were given, not planned from data: what they waste depends '
            "on what comes. <code>python -m builder plan --server</code> tells from real traffic.</p>\n"
        )
    plan = PlanResult.from_json(kept)
    rows = [[_cell("this plan"), _cell(f"{plan.waste:.3f}"), _cell("")]]
    for name, waste in plan.alternatives.items():
        saved = f"{1 - plan.waste / waste:.1%}"
        rows.append([_cell(name.replace("_", " ")), _cell(f"{waste:.3f}"), _cell(saved)])
    caption = f"Padded ÷ real cost over {sum(plan.histogram.values()):,} items; the cost is {plan.cost}."
    table = _table(["buckets", "waste", "the plan saves"], rows, caption)
    return f"{title}<figure>{_picture(plan)}</figure>\n{table}"


def _picture(plan: PlanResult) -> str:
    import matplotlib  # heavy, and only an archive with a plan needs it

    from builder.planning.plot import plan_figure

    written = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "plan"}):
        plan_figure(plan).savefig(written, format="svg", metadata={"Date": None})
    picture = written.getvalue()
    described = f'<svg role="img" aria-label="{len(plan.buckets)} buckets over the distribution, and waste" '
    return described + picture[picture.index("<svg") + len("<svg ") :]


def _recipe(recipe: str) -> str:
    return f'<h2 id="recipe">Recipe</h2>\n<pre>{escape(recipe)}</pre>\n'


def _files(files: Sequence[Tuple[str, int]]) -> str:
    rows = [
        [_cell(f"<code>{escape(name)}</code>", raw=True), _cell(_size(size))] for name, size in sorted(files)
    ]
    listed = _table(["file", "size"], rows, "")
    return f'<h2 id="files">Files</h2>\n<details><summary>{len(files)} files</summary>{listed}</details>\n'


def _cell(content: Any, kind: str = "", style: str = "", raw: bool = False) -> str:
    kind = f' class="{kind}"' if kind else ""
    style = f' style="{style}"' if style else ""
    return f"<td{kind}{style}>{content if raw else escape(str(content))}</td>"


def _table(head: Iterable[str], rows: Iterable[List[str]], caption: str) -> str:
    titles = "".join(
        f'<th scope="col"{" class=text" * (title == "file")}>{escape(title)}</th>' for title in head
    )
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    told = f'<p class="soft">{escape(caption)}</p>\n' if caption else ""
    return (
        f'<div class="scroll"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>\n{body}\n</tbody></table></div>\n{told}"
    )


def _name(bucket: Any) -> str:
    return bucket_name(parse_bucket(bucket))


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} KB"
