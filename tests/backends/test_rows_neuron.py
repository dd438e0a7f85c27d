"""Neuron's recipes fill rows with whole texts, on stand-ins that refuse what a device refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.backends.test_backends_neuron import (
    BUILD,
    TEXTS,
    environment,
    plain,
    python,
    recipe,
    unpacked,
    worker,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
SHARED = ("layout", "segments", "batch_sizes")  # what the recipes that ship say of rows
ROWS = [16, 32]


@pytest.mark.parametrize("backend", [pytest.param("neuron", marks=pytest.mark.slow), "neuronx"])
def test_the_recipe_that_ships_packs_whole_texts(backend: str, tokenizer: Any, tmp_path: Path) -> None:
    """The recipe for Inf2, with a small model and shorter rows: what it says of rows holds for both devices.

    Inf1's own has none, for its torch is too old for the transformers that they need.
    """
    shipped = yaml.safe_load((ROOT / "recipes" / "minilm-neuronx.yaml").read_text())["handler"]
    assert shipped["layout"] == "rows"
    assert len(shipped["buckets"]) * len(shipped["batch_sizes"]) <= 4
    path = recipe(backend, tmp_path, buckets=ROWS, **{key: shipped[key] for key in SHARED})
    done = python(BUILD, str(path), str(tmp_path / "store"), env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    folder = unpacked(tmp_path / "store" / f"{backend}.mar", tmp_path / "archive")
    done = worker(folder, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["describe"]["deviations"]) == {f"{n}_b{b}" for n in ROWS for b in shipped["batch_sizes"]}
    assert max(found["describe"]["deviations"].values()) < 1e-5
    np.testing.assert_allclose(found["answers"], [plain(text, tokenizer) for text in TEXTS], atol=1e-5)
