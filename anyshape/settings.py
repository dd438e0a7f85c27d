"""The `handler:` section of a recipe, read once and checked key by key.

    >>> HandlerConfig.from_mapping({"task": "sentence-embedding", "model": "package:m/model",
    ...                             "buckets": [16, 64]}).buckets
    [(16,), (64,)]

The recipe *is* TorchServe's model-config.yaml: the frontend reads the keys at the top and hands the whole
file to the worker, which reads this section. The builder reads the same section of the same file.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field, fields
from typing import Any, Dict, List, Mapping, Optional, Union

from anyshape.buckets import Bucket, parse_buckets
from anyshape.errors import ConfigError

DTYPES = ("float32", "bfloat16", "float16")
OVER_MAX = ("reject", "truncate", "resize")
DYNAMIC = "dynamic"
_LIMITS = ("max_items", "max_characters", "max_request_characters", "max_pixels", "max_response_bytes")


@dataclass(frozen=True)
class HandlerConfig:
    """What a recipe says under `handler:`.

    What is served
        task: a name from the task registry, such as `sentence-embedding`.
        model: a hub id, a local folder, `package:<import name>/<folder>` or `module:factory`.
        tokenizer: where a text model's tokenizer comes from, written like `model`; default: the model.
        labels: class names, where the model does not bring them.
    How it is compiled
        backend: a name from the backend registry. dtype: float32, bfloat16 or float16.
        buckets: the shapes, or `{plan: FILE, count: K}` to plan them from data at build time.
        batch_sizes: the rows that a call may have, or `dynamic` where the backend leaves dim 0 open.
        largest_batch: with `dynamic`, the most rows in one call. largest_call: the most positions (tokens
            or pixels) in one call: a long bucket takes fewer rows than a short one, though at least the
            smallest batch size; default: no bound.
        tolerance: the largest deviation from the unpadded model that passes the build, relative to the
            largest magnitude in the output. allow_inexact: build all the same, and say so in the answers.
        backend_options: passed to the backend, which checks them.
    How it serves
        over_max: what happens to an input larger than every bucket: reject (413), truncate, resize.
        packing: how a batch is split into calls: packed (by measured cost), per_bucket, fifo, one_by_one.
        threads: intra-op threads per worker; default: the machine's cores ÷ maxWorkers.
        max_items: inputs per request. max_characters: per text. max_request_characters: of all texts of one
            request together; default: twice max_characters. max_pixels: per picture.
        max_response_bytes: of one answer; keep it below TorchServe's max_response_size.
        task_options: passed to the task, which checks them.
    """

    task: str
    model: str
    buckets: Union[List[Bucket], Mapping[str, Any]]
    backend: str = "torchscript"
    tokenizer: Optional[str] = None
    labels: Optional[List[str]] = None
    dtype: str = "float32"
    batch_sizes: Union[List[int], str] = DYNAMIC
    largest_batch: int = 8
    largest_call: Optional[int] = None
    tolerance: float = 1e-4
    allow_inexact: bool = False
    over_max: str = "reject"
    packing: str = "packed"
    threads: Optional[int] = None
    max_items: int = 64
    max_characters: int = 100_000
    max_request_characters: Optional[int] = None
    max_pixels: int = 50_000_000
    max_response_bytes: int = 6_000_000
    backend_options: Dict[str, Any] = field(default_factory=dict)
    task_options: Dict[str, Any] = field(default_factory=dict)

    @property
    def dynamic_batch(self) -> bool:
        return self.batch_sizes == DYNAMIC

    def measured_batch_sizes(self) -> List[int]:
        """The batch sizes that are warmed and measured: the compiled ones, or powers of two."""
        if not isinstance(self.batch_sizes, str):
            return self.batch_sizes
        sizes = [1]
        while sizes[-1] * 2 < self.largest_batch:
            sizes.append(sizes[-1] * 2)
        return sorted({*sizes, self.largest_batch})

    @classmethod
    def from_mapping(cls, section: Any) -> HandlerConfig:
        """Check a recipe's `handler:` section. Raises ConfigError, which names the key."""
        if not isinstance(section, Mapping):
            raise ConfigError("the recipe has no `handler:` section")
        known = {f.name for f in fields(cls)}
        for key in section:
            if key not in known:
                raise ConfigError(f"handler.{key} is not a key; known are {', '.join(sorted(known))}")
        for key in ("task", "model", "buckets"):
            if section.get(key) is None:
                raise ConfigError(f"handler.{key} is missing")
        values: Dict[str, Any] = {key: value for key, value in section.items() if value is not None}
        for key in ("task", "model", "backend", "tokenizer", "dtype", "over_max", "packing"):
            _require(isinstance(values.get(key, ""), str), key, "text", values.get(key))
        for key in ("largest_batch", "largest_call", "threads", *_LIMITS):
            _require(_positive_int(values.get(key, 1)), key, "a positive whole number", values.get(key))
        _one_of(values, "dtype", DTYPES)
        _one_of(values, "over_max", OVER_MAX)
        tolerance = values.get("tolerance", 1.0)
        # YAML 1.1 reads 1e-4 (no dot) as text; people write it all the time.
        if isinstance(tolerance, str):
            with contextlib.suppress(ValueError):
                tolerance = values["tolerance"] = float(tolerance)
        _require(
            isinstance(tolerance, (int, float))
            and not isinstance(tolerance, bool)
            and 0 < tolerance < math.inf,
            "tolerance",
            "a positive number",
            tolerance,
        )
        _require(
            isinstance(values.get("allow_inexact", True), bool),
            "allow_inexact",
            "true or false",
            values.get("allow_inexact"),
        )
        for key in ("backend_options", "task_options"):
            _require(isinstance(values.get(key, {}), Mapping), key, "a mapping", values.get(key))
        labels = values.get("labels", [])
        _require(
            isinstance(labels, list) and all(isinstance(label, str) for label in labels),
            "labels",
            "a list of texts",
            labels,
        )
        values["batch_sizes"] = _batch_sizes(values.get("batch_sizes", DYNAMIC))
        values["buckets"] = _buckets(values["buckets"])
        return cls(**values)


def _require(condition: bool, key: str, wanted: str, value: Any) -> None:
    if not condition:
        raise ConfigError(f"handler.{key} must be {wanted}, not {value!r}")


def _one_of(values: Mapping[str, Any], key: str, allowed: Any) -> None:
    if key in values:
        _require(values[key] in allowed, key, f"one of {', '.join(allowed)}", values[key])


def _positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _batch_sizes(value: Any) -> Union[List[int], str]:
    if value == DYNAMIC:
        return DYNAMIC
    _require(
        isinstance(value, list) and len(value) > 0 and all(_positive_int(size) for size in value),
        "batch_sizes",
        "`dynamic` or a list of positive whole numbers",
        value,
    )
    return sorted(set(value))


def _buckets(value: Any) -> Union[List[Bucket], Mapping[str, Any]]:
    if isinstance(value, Mapping):
        _require("plan" in value, "buckets", "a list, or a mapping with the key `plan`", dict(value))
        return dict(value)
    _require(isinstance(value, list), "buckets", "a list, or a mapping with the key `plan`", value)
    try:
        return parse_buckets(value)
    except ValueError as error:
        raise ConfigError(f"handler.buckets: {error}") from None
