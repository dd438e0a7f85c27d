"""Pictures in tiles: the answer is the whole picture's, computed at once by the plain model, or refused."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anyshape import maps
from anyshape.building.tasks.image_settings import IMAGENET_MEAN, IMAGENET_STD
from anyshape.errors import ConfigError, InputTooLarge, UnprocessableInput
from anyshape.items import Parts
from anyshape.model import BucketedModel
from anyshape.tasks.tiles import Reach
from tests import image_models, tile_models
from tests.image_models import encoded, engine, normalised, photograph

Size = tuple[int, int]


pytestmark = pytest.mark.usefixtures("one_thread")


FEATURES = {
    # model: buckets, what else the recipe says, the step of the sizes that are sent
    "quarter": ([[48, 64]], {}, 1),
    "unet": ([[64, 64], [48, 96]], {}, 4),
    "third": ([[50, 61]], {}, 1),
    "deep": ([[128, 144]], {}, 1),
    "resized": ([[96, 80]], {"multiple_of": 8}, 8),
}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BucketedModel]:
    folder = tmp_path_factory.mktemp("tiles")
    return {
        name: engine(
            folder,
            name,
            task="image-feature-extraction",
            model=f"{module_of(name)}:{name}",
            buckets=buckets,
            over_max="tile",
            task_options=options,
        )
        for name, (buckets, options, _) in FEATURES.items()
    }


def module_of(name: str) -> str:
    return (tile_models if hasattr(tile_models, name) else image_models).__name__


def plainly(model: Any, picture: Image.Image) -> Any:
    with torch.no_grad():
        answer = model(normalised(picture, IMAGENET_MEAN, IMAGENET_STD))
    return (answer if isinstance(answer, torch.Tensor) else answer[0]).numpy()


def sizes_beyond(bucket: list[int], step: int, count: int) -> list[Size]:
    """Up to three times the bucket on either side, larger than it on one at least."""
    draw, found = random.Random(1), []
    while len(found) < count:
        size = tuple(draw.randrange(8, 3 * side) // step * step for side in bucket)
        if any(s > b for s, b in zip(size, bucket)):
            found.append(size)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("name", FEATURES)
def test_the_answer_in_tiles_is_the_whole_pictures(name: str, archives: dict[str, BucketedModel]) -> None:
    buckets, _, step = FEATURES[name]
    model = getattr(tile_models, name, None) or getattr(image_models, name)
    plain = model()
    tiles = []
    for size in sizes_beyond(buckets[-1], step, 12):
        if not any(s > b for s, b in zip(size, buckets[0])):
            continue
        picture = photograph("astronaut.png", size)
        (read,) = archives[name].task.read([encoded(picture)], [{}])
        if isinstance(read, UnprocessableInput):
            assert name == "unet", read  # a side too small for any tile
            continue
        (ran,) = archives[name].run([read])
        found = archives[name].answer(read, ran, {})
        expected = plainly(plain, picture)
        assert found.shape == expected.shape, size
        assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max()), size
        assert isinstance(read, Parts) or name == "unet"
        tiles.append(len(read.items) if isinstance(read, Parts) else 1)
    assert max(tiles) > 2


@pytest.mark.parametrize("size", [(150, 130), (61, 200), (128, 64)])
def test_masks_of_a_picture_in_tiles(tmp_path: Path, size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    model = engine(
        tmp_path,
        "masks",
        task="image-segmentation",
        model="tests.image_models:quarter",
        buckets=[[64, 80]],
        over_max="tile",
    )
    picture = photograph("coffee.png", size)
    scores = torch.from_numpy(plainly(image_models.quarter(), picture))
    whole = torch.nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    expected = whole[0].argmax(0).numpy()
    top = whole[0].topk(2, 0).values
    close = (top[0] - top[1]).numpy() < 1e-5
    for band in (10**9, 500):  # all at once, and a few rows at a time
        monkeypatch.setattr(maps, "BAND", band)
        found = np.full(size, -1)
        for segment in model(encoded(picture)):
            mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(segment["mask"]))))
            found[mask == 255] = image_models.Quarter.labels.index(segment["label"])
        assert (found[~close] == expected[~close]).all()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tile_models:excited", r"adaptive_avg_pool2d looks at all of it"),
        ("tile_models:normed", r"group_norm looks at all of it"),
        ("tile_models:far", r"overlap by \d+ pixels|it sees further than \d+ pixels"),
        ("tile_models:unet_aligned", r"does not move with its picture.*align_corners"),
        ("tile_models:resized", r"multiple_of: 8"),
        ("image_models:mean", r"no map of the picture"),
    ],
)
def test_a_model_that_cannot_be_answered_in_tiles_is_refused_by_name(
    tmp_path: Path, name: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        engine(
            tmp_path,
            "refused",
            task="image-feature-extraction",
            model=f"tests.{name}",
            buckets=[[64, 96]],
            over_max="tile",
        )


def test_limits_and_what_tiles_do_not_have(archives: dict[str, BucketedModel]) -> None:
    with pytest.raises(UnprocessableInput, match="no pooled output together"):
        archives["deep"](encoded(photograph("rocket.jpg", (100, 160))), pool=True)
    assert np.asarray(archives["deep"](encoded(photograph("rocket.jpg", (64, 64))), pool=True)).size == 8
    with pytest.raises(InputTooLarge, match=r"takes \d+ tiles, more than the limit of 64"):
        archives["quarter"](encoded(Image.new("RGB", (900, 900))))
    with pytest.raises(UnprocessableInput, match="multiples of 4x4"):
        archives["unet"](encoded(photograph("rocket.jpg", (130, 131))))


def test_options_are_checked(tmp_path: Path) -> None:
    options = {"task": "image-segmentation", "model": "tests.image_models:quarter", "buckets": [[64, 64]]}
    with pytest.raises(ConfigError, match="max_tiles must be a whole number"):
        engine(tmp_path, "wrong", **options, over_max="tile", task_options={"max_tiles": 0})
    with pytest.raises(ConfigError, match="over_max must be one of reject, resize for image-classification"):
        engine(tmp_path, "wrong", **{**options, "task": "image-classification"}, over_max="tile")


@given(st.data())
def test_tiles_cover_a_picture_without_a_gap_and_keep_their_margins(data: Any) -> None:
    stride = data.draw(st.integers(1, 12))
    positions = data.draw(st.integers(1, 4))
    reach = Reach(stride, positions, data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9)))
    limit = data.draw(st.integers(reach.overlap + 2 * stride, reach.overlap + 40 * stride))
    length = data.draw(st.integers(1, 2000))
    spans = reach.spans(length, limit, None)
    assert spans is not None
    assert (spans[0][0], spans[-1][1]) == (0, length)
    assert all(0 < end - start <= limit and start % stride == 0 for start, end in spans)
    counts = [(end - start) // stride * positions for start, end in spans]
    kept = reach.kept(spans, counts)
    assert kept[0][0] == 0
    assert [to for _, to, _ in kept[:-1]] == [at for at, _, _ in kept[1:]]
    for (start, end), (_, to, place) in zip(spans[:-1], kept[:-1]):
        assert place == start // stride * positions
        assert to <= end // stride * positions - reach.after
    for (start, _), (at, _, _) in zip(spans[1:], kept[1:]):
        assert at >= start // stride * positions + reach.before


def test_the_last_tile_has_a_size_that_the_model_takes() -> None:
    reach = Reach(4, 4, 8, 8)
    taken = set(range(16, 65, 4))
    for length in range(68, 400, 4):
        spans = reach.spans(length, 64, taken)
        assert spans is not None
        assert all(end - start in taken for start, end in spans), length
    assert reach.spans(301, 64, taken) is None
