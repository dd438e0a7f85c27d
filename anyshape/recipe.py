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
from typing import (
    Annotated,
    Any,
    Dict,
    List,
    Literal,
    Mapping,
    Optional,
    Type,
    TypeVar,
    Union,
    get_type_hints,
)

import msgspec
import yaml
from msgspec import Meta, Struct

from anyshape.errors import ConfigError

DYNAMIC = "dynamic"
Shape = TypeVar("Shape", bound=Struct)


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
        Literal["float32", "bfloat16", "float16"],
        _key("What the compiled model computes in.", "one of float32, bfloat16, float16"),
    ] = "float32"
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
        known = {field: written[field] for field in cls.__struct_fields__ if written.get(field) is not None}
        return convert({**known, "handler": given}, cls)


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


_PLACE = re.compile(r"^(?P<said>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"field `(\w+)`")


def convert(value: Any, kind: Type[Shape], where: str = "") -> Shape:
    """`value`, checked, as an object of `kind`.

    Raises ConfigError, which names the key (`where` stands before it), what is allowed and what was found.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explained(str(error), value, kind, where)) from None


def _explained(error: str, value: Any, kind: Type[Struct], where: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.handler.threads`" as a sentence about the key."""
    found = _PLACE.match(error)
    assert found is not None
    path = [part for part in re.split(r"\.|(?=\[)", found["path"] or "") if part]
    place = ".".join([*([where] if where else []), *(p for p in path if not p.startswith("["))])
    named = _FIELD.search(found["said"])
    if named and "missing" in found["said"]:
        return f"{place}.{named[1]} is missing".lstrip(".")
    if named and "unknown" in found["said"]:
        known = ", ".join(sorted(_holder(path, kind, value).__struct_fields__))
        return f"{place}.{named[1]} is not a key; known are {known}".lstrip(".")
    for depth in range(len(path), 0, -1):  # the nearest key that says what it must be
        must = _must(path[:depth], kind, value)
        if must:
            name = ".".join([*([where] if where else []), *(p for p in path[:depth] if p[0] != "[")])
            return f"{name} must be {must}, not {_at(value, path[:depth])!r}"
    return f"{place or 'the file'}: {found['said'][0].lower()}{found['said'][1:]}"


def _at(value: Any, path: List[str]) -> Any:
    for part in path:
        if part.startswith("["):
            inside = part[1:-1]
            value = value[int(inside)] if inside.isdigit() else value
        else:
            value = value[part]
    return value


def _holder(path: List[str], kind: Type[Struct], value: Any) -> Type[Struct]:
    """The type that the keys at `path` belong to."""
    for part in path:
        if part.startswith("["):
            continue
        hint = get_type_hints(kind, include_extras=False).get(part)
        options = getattr(hint, "__args__", (hint,))
        kind = next((o for o in options if isinstance(o, type) and issubclass(o, Struct)), kind)
    return kind


def _must(path: List[str], kind: Type[Struct], value: Any) -> str:
    if path[-1].startswith("["):
        return ""
    holder = _holder(path[:-1], kind, value)
    hint = get_type_hints(holder, include_extras=True).get(path[-1])
    for meta in getattr(hint, "__metadata__", ()):
        if isinstance(meta, Meta) and meta.extra and "must" in meta.extra:
            return str(meta.extra["must"])
    return ""
