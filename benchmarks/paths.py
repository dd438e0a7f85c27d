"""Where things lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BASELINES = ROOT / "benchmarks" / "serving" / "baselines"
WORK = ROOT / "benchmarks" / "work"  # built and temporary things; git ignores it
ENGINES = WORK / "engines"  # the baselines' own packages, kept out of everybody else's environment
CACHE = WORK / "cache"
RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT / "tests" / "data"
IMAGES = ROOT / "docs" / "images"
MODEL_STORE = ROOT / "model_store"
