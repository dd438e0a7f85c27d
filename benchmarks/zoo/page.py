"""docs/models.md: what became of each model, a section for each zoo, between marks."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, List, Mapping

from benchmarks.paths import ROOT

Found = Mapping[str, Mapping[str, Any]]
PAGE = ROOT / "docs" / "models.md"
# What a trial's verdict is called; "failed": the plain model itself could not be made or run here.
# "one size": it takes pictures of one size alone, and is served at that.
VERDICTS = {
    "exact": "served exactly",
    "one size": "served at the one size that they take",
    "wrong": "wrong",
    "refused": "refused",
    "failed": "not tried",
}
HEADINGS = {
    "exact": "Served exactly",
    "one size": "Served at the one size that they take",
    "wrong": "Built, and wrong",
    "refused": "Refused when they are built",
    "failed": "Not tried",
}


def write(zoo: str, section: str, page: Path = PAGE) -> None:
    """Put a zoo's section between its marks, ``<!-- zoo NAME -->`` and ``<!-- end of zoo NAME -->``."""
    first, last = f"<!-- zoo {zoo} -->", f"<!-- end of zoo {zoo} -->"
    text = page.read_text(encoding="utf-8")
    found = re.search(f"{re.escape(first)}.*{re.escape(last)}", text, re.DOTALL)
    if found is None:
        raise SystemExit(f"{page} has no marks {first} and {last}")
    text = text[: found.start()] + f"{first}\n\n{section.strip()}\n\n{last}" + text[found.end() :]
    page.write_text(text, encoding="utf-8")


def summary(found: Found, what: str, later: int = 0) -> str:
    """``**127 {what}: 108 served exactly, 0 wrong, ...**``; `later`: how many no run has come to."""
    counts = {verdict: sum(one["verdict"] == verdict for one in found.values()) for verdict in VERDICTS}
    told = {verdict: count for verdict, count in counts.items() if count or verdict != "one size"}
    said = ", ".join(f"{count} {VERDICTS[verdict]}" for verdict, count in told.items())
    rest = f"; {later} that no run has come to" if later else ""
    return f"**{len(found) + later} {what}: {said}{rest}.**"


def state() -> str:
    """The commit that a run is of, and whether something was changed since."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "an unknown commit"


def states(found: Found) -> str:
    """Which commits the models were tried with, where that is known: a sentence."""
    counts = Counter(str(one["state"]) for one in found.values() if "state" in one)
    said = ", ".join(f"{count} with {name}" for name, count in counts.most_common())
    return f"Tried {said}." if said else ""


def tables(found: Found, level: str = "####") -> str:
    """A table for each verdict that came up; `how` is what a recipe says that is not usual."""
    parts: List[str] = []
    for verdict, heading in HEADINGS.items():
        chosen = {name: found[name] for name in sorted(found) if found[name]["verdict"] == verdict}
        if chosen:
            built = verdict in ("exact", "one size", "wrong")
            head = "| model | deviation | how |\n|---|---|---|" if built else "| model | why |\n|---|---|"
            rows = [_row(name, one, built) for name, one in chosen.items()]
            parts.append("\n".join([f"{level} {heading}", "", head, *rows]))
    return "\n\n".join(parts)


def _row(name: str, found: Mapping[str, Any], built: bool) -> str:
    why = str(found.get("how" if built else "reason", "")).replace("|", "\\|").replace("<", "&lt;")
    return f"| {name} | {found['deviation']:.0e} | {why} |" if built else f"| {name} | {why} |"
