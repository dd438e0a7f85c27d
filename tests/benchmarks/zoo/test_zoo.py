"""The zoo's page and its processes; the models themselves are what `make zoo-text` is for."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.zoo import forks, page
from benchmarks.zoo.runner import read

FOUND = {
    "bert": {"verdict": "exact", "deviation": 3e-7, "how": "", "state": "1a2b3c4"},
    "fnet": {"verdict": "exact", "deviation": 2e-7, "how": "`buckets: every length to 12`"},
    "jetmoe": {"verdict": "refused", "reason": "it reads a | value"},
}


def test_a_section_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    written = tmp_path / "models.md"
    written.write_text("# Models\n\n<!-- zoo texts -->\n\nold\n\n<!-- end of zoo texts -->\n\nafter\n")
    page.write("texts", page.summary(FOUND, "types", 2) + "\n\n" + page.tables(FOUND), written)
    text = written.read_text()
    assert (
        "**5 types: 2 served exactly, 0 wrong, 1 refused, 0 not tried; 2 that no run has come to.**" in text
    )
    assert "| fnet | 2e-07 | `buckets: every length to 12` |" in text
    assert "| jetmoe | it reads a \\| value |" in text
    assert "old" not in text
    assert page.states(FOUND) == "Tried 1 with 1a2b3c4."
    assert page.states({"albert": {"verdict": "refused"}}) == ""
    assert text.endswith("<!-- end of zoo texts -->\n\nafter\n")
    with pytest.raises(SystemExit, match="no marks <!-- zoo sounds -->"):
        page.write("sounds", "", written)


def attempt(name: str) -> dict[str, Any]:
    if name == "raises":
        raise ValueError("no such config")
    if name == "dies":
        os._exit(3)
    if name == "hangs":
        time.sleep(60)
    while name == "computes":
        pass
    return {"verdict": "exact", "deviation": 0.0}


def test_a_model_that_raises_dies_or_hangs_is_one_that_was_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "found.json"
    monkeypatch.setattr(forks, "PATIENCE", 3)
    forks.run_all(["runs"], attempt, results, 1, tmp_path / "logs", {"state": "1a2b3c4"})
    assert read(results) == {"runs": {"verdict": "exact", "deviation": 0.0, "state": "1a2b3c4"}}
    forks.run_all(["raises", "dies", "hangs", "runs"], attempt, results, 1, tmp_path / "logs")
    monkeypatch.setattr(forks, "PATIENCE", 60)  # on a busy machine, a second of computing takes long
    forks.run_all(["computes"], attempt, results, 1, tmp_path / "logs")
    found = read(results)
    assert found["raises"] == {"verdict": "failed", "reason": "ValueError: no such config"}
    assert found["dies"] == {"verdict": "failed", "reason": "its process died, status 3"}
    assert found["hangs"] == {"verdict": "failed", "reason": "not done after 3 seconds"}
    assert found["computes"] == {"verdict": "failed", "reason": "not done after 1 seconds of computing"}
    assert found["runs"] == {"verdict": "exact", "deviation": 0.0}
    assert "no such config" in (tmp_path / "logs" / "raises.txt").read_text()
