from __future__ import annotations

from typing import Any

import pytest
import yaml

from anyshape.errors import ConfigError
from anyshape.recipe import BucketPlan, Recipe, Section
from anyshape.settings import Settings
from tests.conftest import settings_of

GOOD: dict[str, Any] = {"task": "sentence-embedding", "model": "package:m/model", "buckets": [16, 64]}


def section_of(section: Any) -> Section:
    return Recipe.from_mapping({"handler": section}).handler


def test_defaults() -> None:
    section, settings = section_of(GOOD), settings_of(**GOOD)
    assert settings.buckets == [(16,), (64,)]
    assert (settings.backend, settings.dtype, settings.over_max) == ("torchscript", "float32", "reject")
    assert section.tolerance == 1e-4
    assert settings.dynamic_batch
    assert settings.max_request_characters == 2 * settings.max_characters
    assert settings.max_request_pixels == 4 * settings.max_pixels


@pytest.mark.parametrize("key", ["task", "model", "buckets"])
@pytest.mark.parametrize("missing", ["absent", "null"])
def test_what_must_be_there(key: str, missing: str) -> None:
    section: dict[str, Any] = dict(GOOD)
    section[key] = None
    if missing == "absent":
        del section[key]
    with pytest.raises(ConfigError, match=rf"handler\.{key} is missing"):
        section_of(section)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, 3) for key in ("task", "model", "backend", "tokenizer", "dtype", "over_max", "packing")),
        *(("task", value) for value in ([], {"a": 1}, True)),
        ("dtype", "float64"),
        ("over_max", "shrink"),
        *(
            (key, value)
            for key in (
                "largest_batch",
                "largest_call",
                "threads",
                "max_items",
                "max_characters",
                "max_request_characters",
                "max_pixels",
                "max_request_pixels",
                "max_response_bytes",
            )
            for value in (0, -1, 1.5, "8", True, [1])
        ),
        *(
            ("tolerance", value)
            for value in (0, -1e-4, "small", True, [1e-4], float("nan"), float("inf"), "inf")
        ),
        *(("allow_inexact", value) for value in ("yes", 1, [])),
        *(("backend_options", value) for value in ([], "fast", 1)),
        *(("task_options", value) for value in ([], "fast", 1)),
        *(("labels", value) for value in ("yes", [1], {"0": "no"})),
        *(("batch_sizes", value) for value in ([], [0], [1, "4"], 4, "any", [True], {})),
        *(("buckets", value) for value in ([], 64, "64", [0], [64, [64, 64]], [None], {"count": 3})),
    ],
)
def test_an_error_names_the_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^handler\.{key}\b"):
        settings_of(**{**GOOD, key: value})


def test_an_unknown_key_is_named_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"handler\.bucket is not a key; known are .*buckets"):
        section_of({**GOOD, "bucket": [64]})


@pytest.mark.parametrize("section", [None, [], "text", 3])
def test_a_section_that_is_no_mapping(section: Any) -> None:
    with pytest.raises(ConfigError, match="handler:"):
        section_of(section)


def test_yaml_without_a_dot_is_a_number_all_the_same() -> None:
    written = yaml.safe_load("tolerance: 1e-3")
    assert section_of({**GOOD, **written}).tolerance == 1e-3


def test_a_plan_is_settled_by_its_buckets() -> None:
    section = section_of({**GOOD, "buckets": {"plan": "lengths.json", "count": 6}})
    assert section.buckets == BucketPlan(plan="lengths.json", count=6)
    assert Settings.of(section, [(8,), (32,)]).buckets == [(8,), (32,)]
    with pytest.raises(ConfigError, match=r"handler\.buckets is a plan"):
        Settings.of(section)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ({"count": 3}, r"handler\.buckets\.plan is missing"),
        (
            {"plan": "x", "count": 0},
            r"buckets\.count must be a positive whole number or auto, not 0",
        ),
        (
            {"plan": "x", "width_first": "no"},
            r"buckets\.width_first must be true or false, not 'no'",
        ),
        ({"plan": "x", "cont": 3}, r"handler\.buckets\.cont is not a key; known are align, count, exact"),
    ],
)
def test_a_wrong_plan_is_named(plan: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        section_of({**GOOD, "buckets": plan})


@pytest.mark.parametrize("key", ["maxWorkers", "minWorkers", "batchSize", "responseTimeout"])
@pytest.mark.parametrize("value", [0, -1, "2", 1.5, True])
def test_a_key_of_the_frontend_is_checked(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{key} must be a positive whole number, not"):
        Recipe.from_mapping({"handler": GOOD, key: value})


def test_keys_that_only_torchserve_reads_pass() -> None:
    recipe = Recipe.from_mapping({"handler": GOOD, "minWorkers": 2, "deviceType": "cpu"})
    assert recipe.workers == 2


@pytest.mark.parametrize(
    ("keys", "sizes"),
    [
        ({"batch_sizes": [16, 1, 4, 4]}, [1, 4, 16]),
        ({"largest_batch": 1}, [1]),
        ({"largest_batch": 6}, [1, 2, 4, 6]),
        ({"largest_batch": 8}, [1, 2, 4, 8]),
    ],
)
def test_measured_batch_sizes(keys: dict[str, Any], sizes: list[int]) -> None:
    assert settings_of(**GOOD, **keys).batch_sizes == sizes
