"""What is inside an archive: buckets.json and the files it vouches for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Dict, List, Mapping, Optional, Tuple

from msgspec import Meta, Struct, field, to_builtins

from anyshape.buckets import (
    Bucket,
    Shape,
    bucket_name,
    by_size,
    call_shapes,
    parse_buckets,
)
from anyshape.convert import convert
from anyshape.costs import CostRow
from anyshape.errors import ConfigError
from anyshape.packed import INDEX, MANIFEST, RECIPE, check_kind, opened
from anyshape.padding import InputSpec
from anyshape.recipe import Recipe
from anyshape.settings import Settings

MODELS, ASSETS = "models", "assets"
SAMPLES = "samples.json"  # requests and answers that prove the archive where it is served
FORMAT = 1
Count = Annotated[int, Meta(ge=1)]


class Program(Struct, forbid_unknown_fields=True):
    """One compiled program: for one bucket, and for one batch size where the backend fixes it.

    deviation: the largest difference from the unpadded model, relative to the output's largest magnitude.
    rounding: how far the unpadded model's own float32 is from its float64, where that is why the deviation is
    beyond the tolerance: in float64 the padded model and the unpadded one are the same.
    seconds: what compiling took. size: bytes on disk that this bucket adds.
    """

    bucket: Annotated[Tuple[Count, ...], Meta(min_length=1, max_length=2)]
    batch_size: Optional[Count]
    file: str
    sha256: str
    deviation: Optional[float] = None
    rounding: Optional[float] = None
    seconds: float = field(default=0.0, name="compile_seconds")
    size: int = field(default=0, name="bytes")

    @property
    def name(self) -> str:
        return program_name(self.bucket, self.batch_size)


def program_name(bucket: Bucket, batch_size: Optional[int]) -> str:
    """``"128"``, or ``"128_b4"`` where the batch size is fixed."""
    return bucket_name(bucket) + ("" if batch_size is None else f"_b{batch_size}")


class Index(Struct, forbid_unknown_fields=True, kw_only=True):
    """buckets.json: everything that was decided when the archive was built.

    largest_call: the most positions in a call of more than the smallest batch size, or None. unpadded: every
    item runs in the bucket of its own size.
    layout, segments: how items lie in rows, and the most of them in one.
    costs: measured seconds per bucket and batch size, on the machine that built it. measured_on: what that
    was, as `machine.conditions` says it. plan: where the buckets were planned from data, what the planner
    expected. weights: number of parameters. assets: the sha256 of each file that the task needs. compiled:
    what the compiler reported. quality: what int8 costs, by measure, over inputs that were held out.
    """

    format: int = FORMAT
    task: str
    backend: str
    dtype: str
    versions: Dict[str, str]
    inputs: List[InputSpec]
    programs: Annotated[List[Program], Meta(min_length=1)] = field(name="buckets")
    batch_sizes: Annotated[List[Count], Meta(min_length=1)]
    dynamic_batch: bool
    tolerance: float
    exact: bool = True
    weights: int = 0
    assets: Dict[str, str] = field(default_factory=dict)
    costs: List[CostRow] = field(default_factory=list)
    measured_on: Dict[str, str] = field(default_factory=dict)
    plan: Optional[Dict[str, Any]] = None
    backend_options: Dict[str, Any] = field(default_factory=dict)
    largest_call: Optional[int] = None
    layout: str = "items"
    segments: Count = 1
    compiled: Dict[str, Any] = field(default_factory=dict)
    quality: Dict[str, float] = field(default_factory=dict)
    unpadded: bool = False

    @property
    def why_inexact(self) -> str:
        """Why the answers may deviate, for an archive that is not exact."""
        compared = all(program.deviation is not None for program in self.programs)
        return (
            "the archive was built with allow_inexact" if compared else "nothing was compared off the device"
        )

    @property
    def shapes(self) -> List[Shape]:
        """Bucket and batch size of every call that is warmed, measured and packed."""
        return call_shapes(self.buckets, self.batch_sizes, self.largest_call)

    @property
    def buckets(self) -> List[Bucket]:
        return sorted({p.bucket for p in self.programs}, key=by_size)

    @property
    def files(self) -> Dict[str, str]:
        """The sha256 of every file that is loaded, by its name in the archive."""
        return {**self.assets, **{program.file: program.sha256 for program in self.programs}}

    def to_json(self) -> Dict[str, Any]:
        """What buckets.json holds."""
        written: Dict[str, Any] = to_builtins(self)
        return written

    @classmethod
    def from_json(cls, value: object) -> Index:
        """Raises ConfigError if this is not a buckets.json that this version reads."""
        try:
            found = value.get("format") if isinstance(value, Mapping) else None
            if found != FORMAT:
                raise ConfigError(f"{INDEX} has format {found}; this handler reads format {FORMAT}")
            index = convert(value, cls, INDEX)
            parse_buckets(index.buckets)
            return index
        except (ConfigError, ValueError) as error:
            raise ConfigError(f"{INDEX} is not readable ({error}): build the archive again") from None


def read_index(folder: Path) -> Index:
    """Read buckets.json of an unpacked archive. Raises ConfigError if it is missing or broken."""
    try:
        value = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / INDEX} cannot be read: {error}") from None
    return Index.from_json(value)


def read_settings(folder: Path) -> Settings:
    """What serves, by the recipe in an unpacked archive. Raises ConfigError, which names the key."""
    return Settings.of(Recipe.read(folder / RECIPE).handler)


def check_settings(settings: Settings, index: Index) -> None:
    """The recipe in an archive may be edited, but not what was compiled. Raises ConfigError otherwise."""
    for key in ("task", "backend", "dtype", "buckets", "batch_sizes", "largest_call", "layout", "segments"):
        asked, built = getattr(settings, key), getattr(index, key)
        if asked != built:
            raise ConfigError(f"handler.{key} is {asked}, but the archive was built for {built}")
    if settings.unpadded != index.unpadded:
        built = "every length" if index.unpadded else "a list of buckets"
        raise ConfigError(f"handler.buckets is written otherwise, but the archive was built for {built}")


def check_files(folder: Path, index: Index) -> None:
    """Compare every file that is loaded with its sha256. Raises ConfigError, which names the file."""
    found = {}
    for name in index.files:
        path = folder / name
        if folder.resolve() in path.resolve().parents and path.is_file():
            found[name] = sha256(path)
    compare_files(found, index)


def compare_files(found: Mapping[str, str], index: Index) -> None:
    """Compare the sha256 of what is there with buckets.json. Raises ConfigError, which names the file."""
    for name, wanted in index.files.items():
        if name not in found:
            raise ConfigError(f"{name} is named in {INDEX} but missing: build the archive again")
        if found[name] != wanted:
            raise ConfigError(f"{name} is damaged: its sha256 differs from {INDEX}; copy or build it again")


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class Packed:
    """What a .mar of bucketed models holds.

    model: what the manifest says of it. recipe: model-config.yaml's text. files: bytes of each, by name.
    """

    model: Dict[str, Any]
    index: Index
    recipe: str
    files: Dict[str, int]

    @property
    def name(self) -> str:
        return str(self.model["modelName"])

    @property
    def version(self) -> str:
        return str(self.model["modelVersion"])


def read_packed(path: Path) -> Packed:
    """Raises ConfigError if the file cannot be read, is damaged, or is no archive of bucketed models."""
    with opened(path) as packed:
        check_kind(path, packed)
        index = Index.from_json(json.loads(packed.read(INDEX)))
        model = json.loads(packed.read(MANIFEST))["model"]
        if not {"modelName", "modelVersion"} <= set(model):
            raise ConfigError(f"{path} names no model in its {MANIFEST}: build it again")
        files = {info.filename: info.file_size for info in packed.infolist() if not info.is_dir()}
        return Packed(model, index, packed.read(RECIPE).decode("utf-8"), files)
