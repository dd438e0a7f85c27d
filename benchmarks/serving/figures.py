"""The measured tables and pictures of docs/benchmarks.md, from benchmarks/results/.

    python -m benchmarks figures

The words around them are written by hand: only what stands between `<!-- table NAME -->` and
`<!-- end -->` is replaced, and docs/images/bench-*.png are drawn anew. The tables of a folder in there, which
another machine's run wrote, have its name before their own: `amx-paragraphs`.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.paths import IMAGES, RESULTS, ROOT
from benchmarks.serving import systems
from benchmarks.serving.serving import OPEN_LOADS

PAGE = ROOT / "docs" / "benchmarks.md"
OURS, THEIRS = "#1f6feb", "#9aa4b2"
DASH = "–"


def run(argv: list[str]) -> int:
    argparse.ArgumentParser(
        prog="python -m benchmarks figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(argv)
    update(PAGE, IMAGES)
    return 0


def update(page: Path, images: Path) -> None:
    """Replace the tables in `page` and draw the pictures into `images`."""
    tables: dict[str, str] = {}
    images.mkdir(parents=True, exist_ok=True)
    for path in sorted(RESULTS.rglob("latest.json")):
        machine = "" if path.parent == RESULTS else f"{path.parent.name}-"
        rows = json.loads(path.read_text())
        tables[f"{machine}run"] = run_table(json.loads(path.with_name("run.json").read_text()))
        for workload in dict.fromkeys(row["workload"] for row in rows):
            chosen = [row for row in rows if row["workload"] == workload]
            tables[f"{machine}{workload}"] = serving_table(chosen)
            tables[f"{machine}{workload}-cost"] = cost_table(chosen)
            draw_bars(chosen, workload, images / f"bench-{machine}{workload}.png")
            if any("quarter_rate" in row for row in chosen):
                draw_loads(chosen, workload, images / f"bench-{machine}{workload}-loads.png")
    for path in sorted(RESULTS.glob("sweep-*.json")):
        sweep = json.loads(path.read_text())
        tables[path.stem] = sweep_table(sweep)
        draw_sweep(sweep, images / f"bench-{path.stem}.png")
    page.write_text(replace_tables(page.read_text(), tables))


def replace_tables(text: str, tables: dict[str, str]) -> str:
    """Text with every marked table replaced whose name is in `tables`; the others stay."""

    def replacement(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in tables:
            return match.group(0)
        return f"<!-- table {name} -->\n{tables[name]}\n<!-- end -->"

    return re.sub(r"<!-- table (\S+) -->.*?<!-- end -->", replacement, text, flags=re.DOTALL)


def markdown(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *lines])


def number(row: dict[str, Any], key: str, form: str = ".0f", factor: float = 1.0) -> str:
    value = row.get(key)
    if value is None or value != value:
        return DASH
    return format(value * factor, form)


def pair(row: dict[str, Any], prefix: str) -> str:
    if row.get(f"{prefix}p50_ms") is None:
        return DASH
    return f"{row[f'{prefix}p50_ms']:.0f} / {row[f'{prefix}p99_ms']:.0f}"


def serving_table(rows: list[dict[str, Any]]) -> str:
    head = ["system", "req/s", "range", "p50 / p99 ms", "at half load", "at 90 %", "wrong", "errors"]
    lines = []
    for row in rows:
        low, high = row["requests_per_second_range"]
        cells = [name(row), number(row, "requests_per_second"), f"{low:.0f} to {high:.0f}"]
        cells += [pair(row, ""), pair(row, "half_"), pair(row, "ninety_")]
        lines.append([*cells, str(row["wrong"]), str(row["errors"])])
    return markdown(head, lines)


def cost_table(rows: list[dict[str, Any]]) -> str:
    head = ["system", "workers × threads", "hand-over", "tokens/s", "executed ÷ real", "of GEMM peak"]
    head += ["outside model ms", "core hours a million", "memory MB", "model files MB", "READY s"]
    lines = []
    for row in rows:
        cells = [name(row), f"{row['workers']} × {row['threads']}", str(row["batch_size"])]
        cells += [number(row, "tokens_per_second"), number(row, "padding_ratio", ".2f")]
        share = number(row, "share_of_peak", ".0f", 100)
        cells += [share if share == DASH else f"{share} %", number(row, "outside_model_ms", ".2f")]
        cells += [f"{core_hours(row):.1f}", number(row, "memory_mb")]
        lines.append([*cells, number(row, "archive_mb"), number(row, "ready_seconds", ".1f")])
    return markdown(head, lines)


def core_hours(row: dict[str, Any]) -> float:
    """What a million answers take at saturation: times the price of a core's hour, their cost."""
    seconds = 1e6 * row["workers"] * row["threads"] / row["requests_per_second"]
    return float(seconds / 3600)


def name(row: dict[str, Any]) -> str:
    text = f"`{row['system']}`"
    return f"**{text}**" if is_ours(row) else text


def is_ours(row: dict[str, Any]) -> bool:
    return bool(row["system"].startswith("bucketed-"))


def run_table(about: dict[str, Any]) -> str:
    options, peaks = about["options"], about["gemm_gflops"]
    facts = {
        "date": about["date"],
        "machine": f"{about['machine']}, {about['cores']} cores",
        "GEMM peak, all cores": ", ".join(f"{k} {v} GFLOP/s" for k, v in peaks.items()),
        "rounds × seconds": f"{options['rounds']} × {options['seconds']:g}",
        "connections, closed loop": str(options["connections"]),
        "different inputs, seed": f"{options['items']}, {options['seed']}",
    }
    return markdown(["", ""], [[key, value] for key, value in facts.items()])


def draw_bars(rows: list[dict[str, Any]], workload: str, path: Path) -> None:
    """Requests per second, best on top, each with its range over the rounds."""
    pyplot = quiet_pyplot()
    rows = sorted(rows, key=lambda row: row["requests_per_second"])
    rates = [row["requests_per_second"] for row in rows]
    ranges = [row["requests_per_second_range"] for row in rows]
    errors = [
        [rate - low for rate, (low, _) in zip(rates, ranges)],
        [high - rate for rate, (_, high) in zip(rates, ranges)],
    ]
    figure, axes = pyplot.subplots(figsize=(9, 0.36 * len(rows) + 1.2), layout="constrained")
    colours = [OURS if is_ours(row) else THEIRS for row in rows]
    labels = [about(row["system"]) for row in rows]
    axes.barh(labels, rates, xerr=errors, color=colours, ecolor="#57606a", capsize=2)
    for place, (rate, (_, high)) in enumerate(zip(rates, ranges)):
        axes.annotate(f" {rate:.0f}", (high, place), va="center", fontsize=9)
    connections = rows[0]["connections"]
    axes.set_xlabel(f"requests per second, {workload}, {connections} connections (bar: median)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.08)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_loads(rows: list[dict[str, Any]], workload: str, path: Path) -> None:
    """p50 and p99 against the requests that arrive in a second, a line per system; ours are solid."""
    pyplot = quiet_pyplot()
    figure, both = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axes in both:
        axes.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
    for row in rows:
        points = [label for label in OPEN_LOADS if f"{label}_rate" in row]
        rates = [row[f"{label}_rate"] for label in points]
        style = {"linewidth": 2.0} if is_ours(row) else {"linewidth": 1.0, "linestyle": "--"}
        for axes, quantile in zip(both, ("p50", "p99")):
            latencies = [row[f"{label}_{quantile}_ms"] for label in points]
            axes.plot(rates, latencies, marker="o", markersize=3, label=row["system"], **style)
    for axes, quantile in zip(both, ("p50", "p99")):
        axes.set_title(f"{quantile}, ms", fontsize=10)
        axes.set_xlabel(f"requests per second, {workload}, at random times")
        axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def about(system: str) -> str:
    plain, _, settings = system.partition("@")
    known = systems.SYSTEMS.get(plain)
    text = known.about if known else plain
    return f"{text} ({settings})" if settings else text


def sweep_table(sweep: dict[str, Any]) -> str:
    over = sweep["over"]
    head = ["system", over, "req/s", "p50 / p99 ms", "executed ÷ real", "memory MB", "READY s"]
    lines = []
    for row in sweep["rows"]:
        cells = [name(row), str(row[over]), number(row, "requests_per_second"), pair(row, "")]
        cells += [number(row, "padding_ratio", ".2f"), number(row, "memory_mb")]
        lines.append([*cells, number(row, "ready_seconds", ".1f")])
    return markdown(head, lines)


def draw_sweep(sweep: dict[str, Any], path: Path) -> None:
    """Requests per second and p99 against what was varied, one line per system."""
    pyplot = quiet_pyplot()
    over = sweep["over"]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for system in dict.fromkeys(row["system"] for row in sweep["rows"]):
        rows = [row for row in sweep["rows"] if row["system"] == system]
        values = [row[over] for row in rows]
        left.plot(values, [row["requests_per_second"] for row in rows], "o-", label=system)
        right.plot(values, [row["p99_ms"] for row in rows], "o-")
    for axes, label in ((left, "requests per second"), (right, "p99, ms")):
        axes.set_xlabel(over)
        axes.set_title(label, fontsize=10)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        if over == "connections":
            axes.set_xscale("log", base=2)
    left.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def quiet_pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
