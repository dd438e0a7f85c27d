"""Draws the panels of docs/examples/monitoring/grafana-dashboard.json from a Prometheus, without Grafana.

    python -m benchmarks.dashboard --prometheus http://127.0.0.1:9090 --minutes 10

Titles, queries, legends and units are the dashboard's own; the drawing is matplotlib's. It is the picture in
docs/operate.md.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import urllib.parse
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import dates, pyplot

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = ROOT / "docs" / "examples" / "monitoring" / "grafana-dashboard.json"
PICTURE = ROOT / "docs" / "images" / "dashboard.png"
UNITS = {"s": "s", "reqps": "1/s", "ops": "1/s", "percentunit": "", "percent": "%", "decmbytes": "MB"}


def series(prometheus: str, query: str, seconds: float) -> list[dict[str, Any]]:
    """What a query gave over the last `seconds`."""
    now = time.time()
    step = max(1.0, seconds / 200)
    asked = query.replace("$__rate_interval", "30s").replace("$model", ".*")
    fields = {"query": asked, "start": now - seconds, "end": now, "step": step}
    with urllib.request.urlopen(
        f"{prometheus}/api/v1/query_range?{urllib.parse.urlencode(fields)}"
    ) as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), template)


def draw(panel: dict[str, Any], axes: Any, prometheus: str, seconds: float) -> None:
    for target in panel["targets"]:
        for line in series(prometheus, target["expr"], seconds):
            moments = [datetime.fromtimestamp(float(at)) for at, _ in line["values"]]
            values = [float(value) for _, value in line["values"]]
            axes.plot(moments, values, label=legend(target["legendFormat"], line["metric"]), linewidth=1.2)
    unit = UNITS.get(panel["fieldConfig"]["defaults"]["unit"], "")
    axes.set_title(panel["title"] + (f" [{unit}]" if unit else ""), fontsize=8, loc="left")
    axes.tick_params(labelsize=6)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=5))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
    if axes.lines:
        axes.legend(fontsize=5, loc="lower left", ncols=3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("-o", type=Path, default=PICTURE, metavar="PNG")
    given = parser.parse_args()
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    columns = 24 // panels[0]["gridPos"]["w"]
    rows = -(-len(panels) // columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(4.6 * columns, 2.1 * rows), squeeze=False)
    for panel, axes in zip(panels, grid.flat):
        draw(panel, axes, given.prometheus, given.minutes * 60)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.tight_layout()
    figure.savefig(given.o, dpi=110)
    print(given.o)


if __name__ == "__main__":
    main()
