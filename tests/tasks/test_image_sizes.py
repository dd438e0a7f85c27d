"""Pictures of every size: answered as by the plain model, or refused where it refuses; nothing else."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anyshape.building.tasks.image_settings import IMAGENET_MEAN, IMAGENET_STD
from anyshape.building.tasks.taken_sizes import first_taken, to_runs
from anyshape.errors import ConfigError, Refused
from anyshape.model import BucketedModel
from anyshape.tasks.image_sizes import TakenSizes, from_runs
from tests import image_size_models
from tests.image_models import built, encoded, engine, normalised, photograph

MODELS = "tests.image_size_models:"
BUCKET = (48, 40)
NAMES = ["high_resolution", "hourglass", "unet", "patches", "focus"]
Size = tuple[int, int]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BucketedModel]:
    """Of each model, in two buckets, and nothing said of multiples."""
    folder = tmp_path_factory.mktemp("sizes")
    task = {"high_resolution": "image-classification"}
    return {
        name: engine(
            folder,
            name,
            task=task.get(name, "image-feature-extraction"),
            model=MODELS + name,
            buckets=[[32, 32], list(BUCKET)],
        )
        for name in NAMES
    }


def plainly(model: torch.nn.Module, size: Size) -> Any:
    """What the plain model gives for a picture of that size alone, None where it refuses."""
    pixels = normalised(photograph("chelsea.png", size), IMAGENET_MEAN, IMAGENET_STD)
    try:
        with torch.no_grad():
            return model(pixels)[0].numpy()
    except RuntimeError:
        return None


def answered(model: BucketedModel, sizes: list[Size]) -> list[Any]:
    """What the archive gives for each, before the task makes words of it; errors in their places."""
    items = model.task.read([encoded(photograph("chelsea.png", size)) for size in sizes], [{}] * len(sizes))
    return [out if isinstance(out, Refused) else out.row[0] for out in model.run(items)]


@pytest.mark.parametrize("name", NAMES)
def test_every_size_is_answered_as_by_the_plain_model_or_refused_as_by_it(
    name: str, archives: dict[str, BucketedModel]
) -> None:
    model = getattr(image_size_models, name)()
    sizes = [(side, 32) for side in range(1, 49)] + [(40, side) for side in range(1, 41)]
    sizes += [(side, side) for side in range(1, 41)] + [(29, 35), (31, 17), (33, 34), (47, 39)]
    taken = 0
    for size, found in zip(sizes, answered(archives[name], sizes)):
        expected = plainly(model, size)
        if isinstance(found, Refused):
            # One row or column is repeated by torch where it is added to more: no size is meant so.
            assert expected is None or min(size) == 1, (size, found)
            assert found.code == 422
        else:
            assert expected is not None, (size, "was answered, and the plain model refuses it")
            assert found.shape == expected.shape, size
            assert np.abs(found - expected).max() < 1e-4 * max(1, np.abs(expected).max()), size
            taken += 1
    assert taken > 4
    assert taken < len(sizes)


@pytest.mark.parametrize(
    ("name", "size", "nearest", "step"),
    [
        ("high_resolution", (19, 37), "16x39", 8),
        ("hourglass", (20, 30), "24x32", 8),
        ("unet", (31, 38), "32x40", 4),
        ("focus", (47, 9), "48x10", 2),
    ],
)
def test_a_refusal_names_what_is_taken_and_what_to_try(
    name: str, size: Size, nearest: str, step: int, archives: dict[str, BucketedModel]
) -> None:
    (error,) = answered(archives[name], [size])
    assert isinstance(error, Refused)
    assert f"{size[0]}x{size[1]} pixels" in str(error)
    assert f"the nearest that it takes is {nearest}:" in str(error)
    assert str(error).endswith(f"multiple_of: {step}")
    (found,) = answered(archives[name], [tuple(map(int, nearest.split("x")))])  # type: ignore[list-item]
    assert not isinstance(found, Refused)


def test_with_the_step_that_a_refusal_names_every_picture_is_answered(tmp_path: Path) -> None:
    model = engine(
        tmp_path,
        "stepped",
        task="image-classification",
        model=MODELS + "high_resolution",
        buckets=[[48, 40]],
        task_options={"multiple_of": 8},
    )
    sizes = [(1, 1), (19, 37), (48, 40), (37, 12)]
    assert not any(isinstance(found, Refused) for found in answered(model, sizes))


def test_a_model_of_one_size_is_refused_with_what_to_say_and_served_with_that(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "task": "image-classification",
        "model": MODELS + "fixed",
        "buckets": [[32, 32]],
    }
    with pytest.raises(ConfigError, match=r"For pictures of 32x32 alone, say .*multiple_of: 32$"):
        built(tmp_path, "refused", **options)
    model = engine(tmp_path, "fixed", **options, task_options={"multiple_of": 32})
    picture = photograph("chelsea.png", (32, 32))
    found = {each["label"]: each["score"] for each in model(encoded(picture))}
    with torch.no_grad():
        plain = image_size_models.fixed()(normalised(picture, IMAGENET_MEAN, IMAGENET_STD)).softmax(1)[0]
    assert found == pytest.approx(dict(zip(("near", "far"), plain.tolist())), abs=1e-5)
    assert not isinstance(answered(model, [(20, 41)])[0], Refused)


def test_a_picture_that_is_made_smaller_gets_a_size_that_is_taken(tmp_path: Path) -> None:
    model = engine(
        tmp_path,
        "shrunk",
        task="image-feature-extraction",
        model=MODELS + "unet",
        buckets=[[48, 40]],
        over_max="resize",
    )
    items = model.task.read([encoded(photograph("chelsea.png", (100, 70)))], [{}])
    assert [item.size for item in items] == [(48, 32)]  # type: ignore[union-attr]
    (output,) = model.run(items)
    assert not isinstance(output, Refused)


@pytest.mark.parametrize(("name", "step"), [("hourglass", 8), ("unet", 4)])
def test_a_bucket_that_the_model_refuses_is_named_with_what_to_try(
    name: str, step: int, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as stopped:
        built(
            tmp_path, name, task="image-feature-extraction", model=MODELS + name, buckets=[[64, 64], [50, 61]]
        )
    message = str(stopped.value)
    assert message.startswith("handler.buckets: the model takes no picture of 50x61 (RuntimeError: ")
    assert message.endswith(f"try {-(-50 // step) * step}x64, and handler.task_options.multiple_of: {step}")


@pytest.mark.slow
def test_sizes_are_saved_in_few_words(archives: dict[str, BucketedModel], tmp_path: Path) -> None:
    path = built(tmp_path, "u", task="image-feature-extraction", model=MODELS + "unet", buckets=[[480, 640]])
    with zipfile.ZipFile(path) as packed:
        (name,) = (name for name in packed.namelist() if name.endswith("image.json"))
        saved = json.loads(packed.read(name))
    assert saved["heights"] == [[4, 480, 4]]
    assert saved["widths"] == [[4, 640, 4]]
    assert saved["smallest"] == 4


# The runs themselves


@given(st.sets(st.integers(1, 60), min_size=1), st.sets(st.integers(1, 60), min_size=1))
def test_runs_and_nearest_sizes(heights: set[int], widths: set[int]) -> None:
    assert from_runs(to_runs(sorted(heights))) == sorted(heights)
    taken = TakenSizes(sorted(heights), sorted(widths))
    for size in [(1, 60), (30, 31), (60, 1)]:
        assert (size in taken) == (size[0] in heights and size[1] in widths)
        for side, near, within, sides in zip(
            size, taken.nearest(size), taken.within(size), (heights, widths)
        ):
            assert abs(near - side) == min(abs(each - side) for each in sides)
            assert within == max((each for each in sides if each <= side), default=min(sides))
    step = taken.step()
    if step is not None:
        for sides in (heights, widths):
            assert {n for n in range(min(sides), max(sides) + 1) if n % step == 0} <= sides


@pytest.mark.parametrize("least", [1, 2, 3, 17, 31, 32])
def test_the_first_side_that_is_taken_is_found(least: int) -> None:
    sides = [3, 8, 17, 20, 31, 32]
    assert first_taken(lambda side: side >= least, sides) == min(side for side in sides if side >= least)
    assert first_taken(lambda side: False, sides) is None
