"""The schema of a recipe is up to date, takes the recipes that ship, refuses what the builder refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict

import pytest
import yaml
from jsonschema import Draft202012Validator

from anyshape.building import schema
from anyshape.errors import ConfigError
from anyshape.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MINILM: Dict[str, Any] = yaml.safe_load((ROOT / "recipes" / "minilm.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    """Of the file that ships, as an editor reads it."""
    shipped = json.loads(schema.FILE.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(shipped)
    return Draft202012Validator(shipped)


def test_the_file_that_ships_is_up_to_date() -> None:
    assert schema.FILE.read_text(encoding="utf-8") == schema.text(), "run `make schema`"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid(path: Path, validator: Draft202012Validator) -> None:
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert [error.message for error in validator.iter_errors(recipe)] == []


def with_key(**keys: Any) -> Dict[str, Any]:
    return {**MINILM, "handler": {**MINILM["handler"], **keys}}


@pytest.mark.parametrize(
    "recipe",
    [
        with_key(task="my_task:MyTask"),
        with_key(backend="my_backends.fast:Fast"),
        with_key(buckets={"plan": "sizes.json", "count": "auto"}),
        with_key(buckets=["480x640", [640, 480]]),
        with_key(batch_sizes=[1, 4, 16], labels=["yes", "no"], threads=2),
        {**MINILM, "deviceType": "cpu", "jobQueueSize": 10},
    ],
)
def test_what_the_builder_takes_is_valid(recipe: Dict[str, Any], validator: Draft202012Validator) -> None:
    assert Recipe.from_mapping(recipe).handler.model == MINILM["handler"]["model"]
    assert [error.message for error in validator.iter_errors(recipe)] == []


@pytest.mark.parametrize(
    "recipe",
    [
        {key: value for key, value in MINILM.items() if key != "handler"},
        with_key(bucket=[16]),
        with_key(buckets=[0, 16]),
        with_key(buckets={"count": 4}),
        with_key(batch_sizes="all"),
        with_key(dtype="int4"),
        with_key(tolerance=0),
        with_key(over_max="cut"),
        with_key(max_items=0),
        with_key(allow_inexact="no"),
        {**MINILM, "minWorkers": "two"},
    ],
)
def test_what_the_builder_refuses_is_not_valid(
    recipe: Dict[str, Any], validator: Draft202012Validator
) -> None:
    with pytest.raises(ConfigError):
        Recipe.from_mapping(recipe)
    assert not validator.is_valid(recipe)


@pytest.mark.parametrize("key", ["task", "backend"])
def test_a_name_that_is_in_no_table_is_not_valid(key: str, validator: Draft202012Validator) -> None:
    assert not validator.is_valid(with_key(**{key: "no-such-name"}))
