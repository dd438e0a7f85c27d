from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anyshape.building.deviation import deviation
from anyshape.building.source import Source
from anyshape.building.tasks import create_builder
from anyshape.building.tasks.base import TaskBuilder
from anyshape.building.verify import deviations
from anyshape.model import BucketedModel
from anyshape.recipe import Section
from tests.conftest import BUCKETS


@pytest.mark.parametrize(
    ("found", "expected", "result"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([1.0, -4.0], [1.0, -4.4], 0.4 / 4.4),
        ([0.5], [0.0], 0.5),
        ([], [], 0.0),
        ([1.0], [[1.0]], float("inf")),
        ([1.0, 2.0], [1.0], float("inf")),
        ([float("nan"), 1.0], [1.0, 1.0], float("inf")),
        ([float("nan")], [float("nan")], float("inf")),
        ([float("inf")], [1.0], float("inf")),
    ],
)
def test_a_deviation_is_relative_to_the_largest_magnitude(found: Any, expected: Any, result: float) -> None:
    with np.errstate(all="ignore"):
        assert deviation(np.asarray(found), np.asarray(expected)) == pytest.approx(result)


@pytest.fixture
def model(embedding_archive_folder: Path) -> BucketedModel:
    return BucketedModel.load(embedding_archive_folder, warm=False)


@pytest.fixture(scope="module")
def builder(encoder_folder: Path, embedding: BucketedModel) -> TaskBuilder:
    """What built the archive, with the task that came out of it."""
    section = Section(task="sentence-embedding", model=str(encoder_folder), buckets=BUCKETS)
    builder = create_builder(
        section, embedding.settings, Source(section.model, section.tokenizer, encoder_folder)
    )
    builder.task = embedding.task
    return builder


class MeanOfTokens(torch.nn.Module):
    """transformers' own encoder, called with unpadded tokens; the mean of what it gives, at length one."""

    def __init__(self, encoder: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.encoder, self.names = encoder, names

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor]:
        vectors = self.encoder(**dict(zip(self.names, tensors))).last_hidden_state
        return (torch.nn.functional.normalize(vectors.mean(1)),)


@pytest.fixture(scope="module")
def reference(encoder_folder: Path, builder: TaskBuilder) -> torch.nn.Module:
    from transformers import AutoModel

    names = [spec.name for spec in builder.task.inputs]
    return MeanOfTokens(AutoModel.from_pretrained(encoder_folder), names).eval()


def test_every_program_is_compared(
    model: BucketedModel, builder: TaskBuilder, reference: torch.nn.Module
) -> None:
    told: list[Any] = []
    found = deviations(model, builder, reference, told.append)
    assert told == [(bucket,) for bucket in BUCKETS]
    assert set(found) == {str(bucket) for bucket in BUCKETS}
    assert all(0 <= worst < 1e-5 for worst in found.values())


@pytest.mark.parametrize(("row", "rows"), [(0, 1), (0, 2), (1, 2), (0, 4), (3, 4)])
def test_a_program_that_is_wrong_in_one_row_of_one_batch_size_is_found(
    row: int, rows: int, model: BucketedModel, builder: TaskBuilder, reference: torch.nn.Module
) -> None:
    whole = model.programs.loaded["16"]

    def wrong(*tensors: torch.Tensor) -> Any:
        (output,) = whole(*tensors)
        output = output.clone()
        if len(output) == rows:
            output[row] += 0.01
        return (output,)

    model.programs.loaded["16"] = wrong
    found = deviations(model, builder, reference)
    assert found["16"] > 1e-3
    assert all(worst < 1e-5 for name, worst in found.items() if name != "16")


@pytest.mark.parametrize("length", [2, 16, 15, 9])
def test_a_program_that_is_wrong_at_one_length_is_found(
    length: int, model: BucketedModel, builder: TaskBuilder, reference: torch.nn.Module
) -> None:
    """The empty text, exactly full, one less, and one more than the bucket before."""
    whole = model.programs.loaded["16"]

    def wrong(input_ids: torch.Tensor, mask: torch.Tensor, *rest: torch.Tensor) -> Any:
        (output,) = whole(input_ids, mask, *rest)
        return (output + 0.01 * (mask.sum(1, keepdim=True) == length),)

    model.programs.loaded["16"] = wrong
    assert deviations(model, builder, reference)["16"] > 1e-3
