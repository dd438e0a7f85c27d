"""What every task does where archives are built: load the model, save what serving needs, make samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, ClassVar, Dict, List, Optional, Sequence, Tuple

import torch

from anyshape.archive import ASSETS
from anyshape.buckets import Bucket, Size
from anyshape.building.deviation import deviation
from anyshape.building.source import Source
from anyshape.errors import ConfigError
from anyshape.items import Item, Row
from anyshape.layouts import Items, create_layout
from anyshape.recipe import Section
from anyshape.settings import Settings
from anyshape.tasks import load_task
from anyshape.tasks.base import Task

Exact = Callable[[torch.nn.Module], torch.nn.Module]


class TaskBuilder:
    """The half of a task that makes a model fit for buckets.

    `load_model` → `save` → `task`, its serving half, exists → `adapt` wraps the model so that it takes
    exactly the tensors of `task.inputs` and returns a tuple of tensors → `examine` → compared over
    `sizes_to_check`, with a `sample` of each.

    auto_class: the class of transformers that loads a hub id or a folder.
    """

    auto_class: ClassVar[str] = ""

    task: Task

    def __init__(self, section: Section, settings: Settings, source: Source) -> None:
        self.section, self.settings, self.source = section, settings, source

    @property
    def layout(self) -> Items:
        """How the items of a call lie in its rows. The serving half must exist."""
        return create_layout(self.settings.layout, self.settings.segments, self.task)

    def load_model(self) -> torch.nn.Module:
        """The unmodified model in eval mode. Raises BuildError or ConfigError."""
        return self.source.model(self.auto_class)

    def save(self, model: torch.nn.Module, folder: Path) -> None:
        """Write what serving needs beside the compiled model to `folder`."""

    def save_and_load(self, model: torch.nn.Module, folder: Path) -> Task:
        """Save to `folder`, an archive to be, and make the serving half from it as a worker does."""
        self.save(model, folder / ASSETS)
        self.task = load_task(self.settings, folder)
        return self.task

    def adapt(self, model: torch.nn.Module, exact: Exact) -> torch.nn.Module:
        """The model to compile: takes the tensors of `task.inputs` in order, returns a tuple of tensors.

        `exact` wraps a model of pictures so that what lies outside a picture's valid size is not seen.
        """
        raise NotImplementedError

    def adapt_rows(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model to compile where a row holds several texts: takes what that layout does (`layouts.Rows`).

        Raises ConfigError if this task or the model cannot do that.
        """
        raise ConfigError(f"handler.layout: rows is not known to {self.settings.task}: use items")

    def reference(self, model: torch.nn.Module) -> torch.nn.Module:
        """What the compiled model is compared with: takes the same tensors, unpadded. Default: the same."""
        return self.adapt(model, lambda plain: plain)

    def in_double(self, reference: torch.nn.Module) -> Optional[Tuple[torch.nn.Module, torch.nn.Module]]:
        """The adapted model and the unpadded one, both uncompiled and in float64, made of copies of what
        `reference` holds; None for a task that does not say."""
        return None

    def deviation(self, found: Row, expected: Row) -> float:
        """How far an item's outputs are from the right ones, relative to the largest magnitude of each."""
        return max(map(deviation, found, expected))

    def first_difference(self, reference: torch.nn.Module, bucket: Bucket) -> Optional[str]:
        """The operation at which the padded model begins to differ from the unpadded one that `reference`
        holds, for people; None where that is not known."""
        return None

    def examine(self, model: torch.nn.Module, reference: torch.nn.Module, folder: Path) -> None:
        """Look at the adapted model before it is compiled, and add what came out of that to `folder`."""

    def checked_sizes(self, bucket: Bucket, smaller: Sequence[Bucket]) -> List[Size]:
        """Those sizes; the bucket's own alone, a few times, where nothing is padded."""
        return [bucket] * 3 if self.settings.unpadded else self.sizes_to_check(bucket, smaller)

    def sizes_to_check(self, bucket: Bucket, smaller: Sequence[Bucket]) -> List[Size]:
        """Item sizes that the build compares in `bucket`; `smaller` are the buckets before it."""
        raise NotImplementedError

    def sample_request(self, bucket: Bucket) -> Optional[Dict[str, Any]]:
        """A request whose input runs in this bucket, `{"inputs": ..., "parameters": {...}}`, a file as bytes;
        None where the task makes none. With its answer it goes into the archive (`building.samples`)."""
        return None

    def sample(self, size: Size, seed: int) -> Item:
        """A plausible item of exactly this size, the same for the same seed."""
        raise NotImplementedError
