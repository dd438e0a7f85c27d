"""What serves, settled: the part of a recipe that a running model needs, with nothing left open.

settings = Settings.of(Recipe.read(folder / "model-config.yaml").handler)
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from msgspec import Struct

from anyshape.buckets import Bucket, every_length, parse_buckets
from anyshape.errors import ConfigError
from anyshape.recipe import DYNAMIC, BucketPlan, Section

_SAME = (
    *("task", "task_options", "backend", "backend_options", "dtype", "largest_call", "layout"),
    *("over_max", "packing", "early_answers"),
    *("threads", "max_items", "max_characters", "max_pixels", "max_response_bytes"),
)


class Settings(Struct, frozen=True, kw_only=True):
    """The keys of the recipe's section that serve (see `recipe.Section`), with

    buckets: parsed, sorted by volume, unique. batch_sizes: the rows that are warmed and measured, rising: the
    listed ones or, where any number is allowed (`dynamic_batch`), powers of two up to the largest. unpadded:
    there is a bucket for every length, and an item runs in its own alone.
    segments: the most texts in a row; 1 in the layout `items`.
    """

    task: str
    backend: str
    dtype: str
    buckets: List[Bucket]
    batch_sizes: List[int]
    dynamic_batch: bool
    unpadded: bool
    largest_call: Optional[int]
    layout: str
    segments: int
    over_max: str
    packing: str
    early_answers: bool
    threads: Optional[int]
    max_items: int
    max_characters: int
    max_request_characters: int
    max_pixels: int
    max_request_pixels: int
    max_response_bytes: int
    task_options: Dict[str, Any]
    backend_options: Dict[str, Any]

    @classmethod
    def of(cls, section: Section, buckets: Optional[Sequence[Bucket]] = None) -> Settings:
        """Settle a section; `buckets` are the planned ones where it holds a plan.

        Raises ConfigError if the buckets make no sense, or if a plan was not carried out.
        """
        if buckets is None:
            if isinstance(section.buckets, BucketPlan):
                raise ConfigError("handler.buckets is a plan: build the archive, which carries it out")
            try:
                written = section.buckets
                buckets = every_length(written) if isinstance(written, str) else parse_buckets(written)
            except ValueError as error:
                raise ConfigError(f"handler.buckets: {error}") from None
        unpadded = isinstance(section.buckets, str)
        if unpadded and section.layout != "items":
            raise ConfigError(
                f"handler.buckets: {section.buckets} leaves no rows to share: write no handler.layout"
            )
        dynamic = section.batch_sizes == DYNAMIC
        same = {name: getattr(section, name) for name in _SAME}
        return cls(
            buckets=list(buckets),
            batch_sizes=_powers(section.largest_batch) if dynamic else sorted(set(section.batch_sizes)),  # type: ignore[arg-type]
            dynamic_batch=dynamic,
            segments=section.segments if section.layout == "rows" else 1,
            unpadded=unpadded,
            max_request_characters=section.max_request_characters or 2 * section.max_characters,
            max_request_pixels=section.max_request_pixels or 4 * section.max_pixels,
            **same,
        )


def _powers(largest: int) -> List[int]:
    """1, 2, 4 ... up to `largest`, which is in it."""
    sizes = [1]
    while sizes[-1] * 2 < largest:
        sizes.append(sizes[-1] * 2)
    return sorted({*sizes, largest})
