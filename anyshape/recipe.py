"""A recipe as it is written: the YAML that describes an archive.

    >>> recipe = Recipe.read(Path("recipes/minilm.yaml"))
    >>> recipe.handler.task, recipe.workers
    ('sentence-embedding', 1)

The recipe *is* TorchServe's model-config.yaml: the frontend reads the keys at the top, and this project the
section `handler:`. What it leaves open is settled in `settings.Settings`.

Each key's description and what it may be stand here once: error messages, the JSON schema for editors and the
reference in the docs are made from them.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Dict, List, Literal, Mapping, Optional, Union

import yaml
from msgspec import Meta, Struct

from anyshape.convert import convert
from anyshape.errors import ConfigError

DYNAMIC = "dynamic"


def _key(description: str, must: str = "", **limits: Any) -> Meta:
    """`must` completes the sentence "the key must be ..." of an error."""
    return Meta(description=description, extra={"must": must} if must else None, **limits)


MAX_PIXELS = 50_000_000
COUNT = "a positive whole number"
BUCKET_LIST = (
    "a list of lengths or of [height, width], `every length to 64` (or any number), or a mapping with the "
    "key `plan`"
)

Text = Annotated[str, Meta(min_length=1)]
Side = Annotated[int, Meta(ge=1)]
EveryLength = Annotated[str, Meta(pattern=r"^every length( from [1-9]\d*)? to [1-9]\d*$")]
Bucket = Union[Side, Annotated[List[Side], Meta(min_length=1, max_length=2)], str]


Number = Union[int, float]
NUMBERS = "a number, or a list of numbers"


class TokenInput(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An input of a model of texts beside the tokenizer's own: what it is at each token."""

    values: Annotated[
        Union[Literal["words", "positions"], int, float],
        _key(
            "`words`: a request brings one for each word; `positions`: 0, 1, 2 …; a number: that one.",
            "words, positions or a number",
        ),
    ]
    numbers: Annotated[
        Optional[Side], _key("How many numbers a value is; default: it is one number.", COUNT)
    ] = None
    dtype: Annotated[Literal["int64", "float32"], _key("What the model takes.", "int64 or float32")] = "int64"
    pad: Annotated[Number, _key("What padding is, and a token of no word.", "a number")] = 0
    first: Annotated[int, _key("With positions, where they begin.", "a whole number")] = 0
    least: Annotated[Number, _key("With words, the least number of a value.", "a number")] = 0
    largest: Annotated[
        Union[Number, List[Number], None],
        _key("With words, the largest number of a value, or of each of its numbers; required.", NUMBERS),
    ] = None
    special: Annotated[
        Dict[str, Union[Number, List[Number]]],
        _key("With words, the values of special tokens, by their names.", "a mapping of tokens to values"),
    ] = {}


class BucketPlan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Buckets that are planned from data when the archive is built."""

    plan: Annotated[
        str, _key("The file with lengths or sizes, relative to the recipe.", "the name of a file")
    ]
    count: Annotated[
        Union[Side, Literal["auto"]],
        _key("How many buckets; auto: the knee of the waste curve.", f"{COUNT} or auto"),
    ] = "auto"
    align: Annotated[int, _key("Sides are multiples of this.", COUNT, ge=1)] = 1
    exact: Annotated[bool, _key("Prove the optimum over a coarse grid of sides.", "true or false")] = False
    field: Annotated[
        Optional[str], _key("Which histogram of a file that holds several.", "the name of a histogram")
    ] = None
    width_first: Annotated[bool, _key("Sizes are [width, height].", "true or false")] = False
    tokenizer: Annotated[
        Optional[str], _key("For a file of raw texts; written as `tokenizer` of the recipe.", "text")
    ] = None


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What stands under `handler:`."""

    # What is served
    task: Annotated[
        Text,
        _key(
            "What turns a request into inputs and outputs into an answer: a task's name, or `module:Class` "
            "of your own in a file beside the recipe.",
            "the name of a task",
        ),
    ]
    model: Annotated[
        Text,
        _key(
            "A hub id, a local folder, `package:<import name>/<folder>`, or `module:function` that returns "
            "an nn.Module.",
            "text",
        ),
    ]
    tokenizer: Annotated[
        Optional[Text],
        _key("Where the tokenizer comes from, written as `model`; default: the model.", "text"),
    ] = None
    trust_remote_code: Annotated[
        bool,
        _key(
            "Python code among the model's files (`auto_map` of its config.json) may run where the archive "
            "is built; the archive never holds it.",
            "true or false",
        ),
    ] = False
    labels: Annotated[
        Optional[List[str]], _key("Class names, where the model does not bring them.", "a list of texts")
    ] = None
    inputs: Annotated[
        Dict[str, TokenInput],
        _key(
            "Inputs that a model of texts takes beside the tokenizer's own (`bbox`, `position_ids` …).",
            "a mapping of names to what each input is",
        ),
    ] = {}
    task_options: Annotated[Dict[str, Any], _key("Options of the task.", "a mapping")] = {}

    # How it is compiled
    backend: Annotated[
        Text,
        _key(
            "How programs are compiled, saved, loaded and run: a backend's name, or `module:Class` of your "
            "own in a file beside the recipe.",
            "the name of a backend",
        ),
    ] = "torchscript"
    backend_options: Annotated[Dict[str, Any], _key("Options of the backend.", "a mapping")] = {}
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16", "int8"],
        _key("What the compiled model computes in.", "one of float32, bfloat16, float16, int8"),
    ] = "float32"
    calibration: Annotated[
        Optional[Text],
        _key(
            "For int8: a file of texts, one a line (or .jsonl), a folder of pictures, or `module:function` "
            "that returns a list. Most give the ranges of numbers; every fifth is held out, to judge by.",
            "the name of a file, a folder or a function",
        ),
    ] = None
    buckets: Annotated[
        Union[List[Bucket], BucketPlan, EveryLength],
        _key(
            "The shapes to compile: lengths, [height, width], or a plan from data; `every length to 64`: one "
            "per length, so that nothing is ever padded.",
            BUCKET_LIST,
        ),
    ]
    batch_sizes: Annotated[
        Union[Annotated[List[Side], Meta(min_length=1)], Literal["dynamic"]],
        _key(
            "The rows that a call may have, or dynamic where the backend leaves them open.",
            "`dynamic` or a list of positive whole numbers",
        ),
    ] = "dynamic"
    largest_batch: Annotated[int, _key("With dynamic, the most rows of one call.", COUNT, ge=1)] = 8
    largest_call: Annotated[
        Optional[Side],
        _key(
            "The most tokens or pixels of one call, so that long inputs take fewer rows than short ones; "
            "default: no bound.",
            COUNT,
        ),
    ] = None
    layout: Annotated[
        Literal["items", "rows"],
        _key(
            "How inputs lie in a call: items, one in each row; rows, whole texts beside each other in rows "
            "as long as the buckets, so that a program or two take every length.",
            "items or rows",
        ),
    ] = "items"
    segments: Annotated[int, _key("With rows, the most texts in a row.", COUNT, ge=1)] = 32
    tolerance: Annotated[
        float,
        _key(
            "The largest deviation from the unpadded model that passes the build, relative to the largest "
            "magnitude of the output.",
            "a positive number",
            gt=0,
        ),
    ] = 1e-4
    allow_inexact: Annotated[
        bool, _key("Build all the same where it deviates more, and say so in every answer.", "true or false")
    ] = False

    # How it serves
    over_max: Annotated[
        Literal["reject", "truncate", "window", "resize", "tile"],
        _key(
            "What happens to an input larger than every bucket; window: overlapping pieces of a text; "
            "tile: of a picture.",
            "one of reject, truncate, window, resize, tile",
        ),
    ] = "reject"
    packing: Annotated[
        Literal["packed", "per_bucket", "fifo", "one_by_one"],
        _key(
            "How a batch is split into calls: packed by measured cost, or as servers usually do it.",
            "one of packed, per_bucket, fifo, one_by_one",
        ),
    ] = "packed"
    early_answers: Annotated[
        bool,
        _key(
            "Whether an answer leaves as its call ends, the cheapest calls first, or with its whole batch.",
            "true or false",
        ),
    ] = False
    threads: Annotated[
        Optional[Side], _key("Intra-op threads of a worker; default: cores ÷ maxWorkers.", COUNT)
    ] = None
    max_items: Annotated[int, _key("Inputs, pairs or masks of one request.", COUNT, ge=1)] = 64
    max_characters: Annotated[int, _key("Characters of one text.", COUNT, ge=1)] = 100_000
    max_request_characters: Annotated[
        Optional[Side],
        _key("Characters of all texts of a request together; default: twice max_characters.", COUNT),
    ] = None
    max_pixels: Annotated[int, _key("Pixels of one picture.", COUNT, ge=1)] = MAX_PIXELS
    max_request_pixels: Annotated[
        Optional[Side],
        _key("Pixels of all pictures of a request together; default: four times max_pixels.", COUNT),
    ] = None
    max_response_bytes: Annotated[
        int, _key("Bytes of one answer; keep it below TorchServe's max_response_size.", COUNT, ge=1)
    ] = 6_000_000


class Recipe(Struct, frozen=True, kw_only=True):
    """A whole recipe. Keys at the top that are not named here are TorchServe's own and pass through to it."""

    handler: Annotated[Section, _key("What this project reads.", "a mapping")]
    minWorkers: Annotated[Optional[Side], _key("Workers at start.", COUNT)] = None
    maxWorkers: Annotated[Optional[Side], _key("Workers at most; set it with minWorkers.", COUNT)] = None
    batchSize: Annotated[
        Optional[Side],
        _key("Requests that the frontend may hand over at once; the packer splits them.", COUNT),
    ] = None
    maxBatchDelay: Annotated[
        Optional[Annotated[int, Meta(ge=0)]],
        _key("Milliseconds to wait for more requests; TorchServe takes 0 for 100.", "a whole number"),
    ] = None
    startupTimeout: Annotated[
        Optional[Side], _key("Seconds that loading and warming every bucket may take.", COUNT)
    ] = None
    responseTimeout: Annotated[Optional[Side], _key("Seconds that a batch may take.", COUNT)] = None

    @property
    def workers(self) -> int:
        """How many workers share the machine."""
        return self.maxWorkers or self.minWorkers or 1

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The recipe in a file. Raises ConfigError, which names the file or the key."""
        return cls.from_mapping(read_yaml(path))

    @classmethod
    def from_mapping(cls, written: Mapping[str, Any]) -> Recipe:
        """A recipe that was read already. Raises ConfigError, which names the key and what is allowed."""
        section = written.get("handler")
        if not isinstance(section, Mapping):
            raise ConfigError("the recipe has no `handler:` section")
        given = {key: value for key, value in section.items() if value is not None}
        tolerance = given.get("tolerance")
        if isinstance(tolerance, str) and re.fullmatch(r"\d+(\.\d*)?[eE][-+]?\d+", tolerance):
            given["tolerance"] = float(tolerance)  # YAML 1.1 reads 1e-4 (no dot) as text
        if isinstance(given.get("tolerance"), float) and not math.isfinite(given["tolerance"]):
            raise ConfigError(f"handler.tolerance must be a positive number, not {tolerance!r}")
        if isinstance(given.get("inputs"), Mapping):
            for name, value in given["inputs"].items():  # one by one: errors then say which
                convert(value, TokenInput, f"handler.inputs.{name}")
        known = {field: written[field] for field in cls.__struct_fields__ if written.get(field) is not None}
        recipe = convert({**known, "handler": given}, cls)
        if recipe.handler.early_answers and written.get("clientTimeoutInMills"):
            raise ConfigError(
                "handler.early_answers and clientTimeoutInMills exclude each other: a client whose time ends "
                "within its answer would wait for the rest of it; leave out one of them"
            )
        return recipe


def read_yaml(path: Path) -> Dict[str, Any]:
    """A YAML file as a mapping. Raises ConfigError if it is not YAML or not a mapping."""
    try:
        return parse_yaml(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as a recipe: {error}") from None


def parse_yaml(content: bytes, name: str) -> Dict[str, Any]:
    """The content of a file called `name`, as `read_yaml` reads it."""
    try:
        recipe = yaml.safe_load(content.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} cannot be read as a recipe: {error}") from None
    if not isinstance(recipe, Mapping):
        raise ConfigError(f"{name} is not a recipe: it must be a mapping with a `handler:` section")
    return dict(recipe)
