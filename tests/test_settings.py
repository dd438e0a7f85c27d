from __future__ import annotations

from typing import Any

import pytest
import yaml

from anyshape.errors import ConfigError
from anyshape.settings import HandlerConfig

GOOD = {"task": "sentence-embedding", "model": "package:m/model", "buckets": [16, 64]}


def test_defaults() -> None:
    config = HandlerConfig.from_mapping(GOOD)
    assert config.buckets == [(16,), (64,)]
    assert (config.backend, config.dtype, config.over_max) == ("torchscript", "float32", "reject")
    assert config.tolerance == 1e-4
    assert config.dynamic_batch


@pytest.mark.parametrize("key", ["task", "model", "buckets"])
@pytest.mark.parametrize("missing", ["absent", "null"])
def test_what_must_be_there(key: str, missing: str) -> None:
    section: dict[str, Any] = dict(GOOD)
    section[key] = None
    if missing == "absent":
        del section[key]
    with pytest.raises(ConfigError, match=rf"handler\.{key} is missing"):
        HandlerConfig.from_mapping(section)


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
        HandlerConfig.from_mapping({**GOOD, key: value})


def test_an_unknown_key_is_named_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"handler\.bucket is not a key; known are .*buckets"):
        HandlerConfig.from_mapping({**GOOD, "bucket": [64]})


@pytest.mark.parametrize("section", [None, [], "text", 3])
def test_a_section_that_is_no_mapping(section: Any) -> None:
    with pytest.raises(ConfigError, match="handler:"):
        HandlerConfig.from_mapping(section)


def test_yaml_without_a_dot_is_a_number_all_the_same() -> None:
    written = yaml.safe_load("tolerance: 1e-3")
    assert HandlerConfig.from_mapping({**GOOD, **written}).tolerance == 1e-3


def test_a_plan_stays_a_mapping() -> None:
    plan = {"plan": "lengths.json", "count": 6}
    assert HandlerConfig.from_mapping({**GOOD, "buckets": plan}).buckets == plan


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
    assert HandlerConfig.from_mapping({**GOOD, **keys}).measured_batch_sizes() == sizes
