"""Masks out of queries, as the image processors of transformers make them of the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anyshape import maps
from anyshape.errors import InputTooLarge
from anyshape.masks import RULES, Limits, Queries, View
from tests.mask_models import resize_without_torchvision

CLASSES, QUERIES = 5, 20
GIVEN = (64, 64)
PROCESSORS = {
    "conditional_detr": "ConditionalDetr",
    "detr": "Detr",
    "eomt": "Eomt",
    "mask2former": "Mask2Former",
    "maskformer": "MaskFormer",
    "oneformer": "OneFormer",
}
Found = list[tuple[int, float, np.ndarray]]


def queries(view: View, seed: int = 0, at: tuple[int, int] = (16, 16)) -> Queries:
    """Blobs of many shapes; some queries are sure of their class, and some of nothing."""
    torch.manual_seed(seed)
    classes = torch.randn(QUERIES, CLASSES + 1) * 3
    coarse = torch.randn(1, QUERIES, 4, 5) * 5
    return Queries(classes, F.interpolate(coarse, size=at, mode="bicubic")[0], view)


def processor(kind: str, folder: Path) -> Any:
    import transformers

    options: dict[str, Any] = {}
    if kind == "oneformer":
        (folder / "classes.json").write_text(json.dumps({"0": {"isthing": 1, "name": "sky"}}), "utf-8")
        options = {"repo_path": str(folder), "class_info_file": "classes.json"}
    if kind == "eomt":
        options = {"size": dict(zip(("shortest_edge", "longest_edge"), GIVEN))}
    return getattr(transformers, PROCESSORS[kind] + "ImageProcessorPil")(**options)


@pytest.fixture(autouse=True)
def _without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    resize_without_torchvision(monkeypatch)


def outputs_of(asked: Queries) -> Any:
    """As all the models name them."""
    classes, masks = asked.classes[None], asked.masks[None]
    return SimpleNamespace(
        class_queries_logits=classes,
        masks_queries_logits=masks,
        logits=classes,
        pred_masks=masks,
        patch_offsets=None,
    )


def expected(kind: str, subtask: str, asked: Queries, folder: Path, **limits: float) -> Found:
    process = getattr(processor(kind, folder), f"post_process_{subtask}_segmentation")
    (found,) = process(outputs_of(asked), target_sizes=[asked.view.size], **limits)
    pixels = np.asarray(found["segmentation"])
    return [(one["label_id"], one["score"], pixels == one["id"]) for one in found["segments_info"]]


def assert_same(found: Any, wanted: Found) -> None:
    found = list(found)
    assert [(one.label, one.score) for one in found] == [(label, score) for label, score, _ in wanted]
    for one, (_, _, mask) in zip(found, wanted):
        np.testing.assert_array_equal(one.mask, mask)


VIEWS = [
    View(GIVEN, GIVEN, scaled=False),
    View((61, 63), (61, 63), scaled=False),
    View((33, 64), (33, 64), scaled=False),
    View(GIVEN, (131, 97), scaled=True),
    View(GIVEN, (96, 96), scaled=True),
    View((9, 15), (9, 15), scaled=False),  # smaller than its masks
]


# EoMT's processor knows one size, and scales pictures in their own shape.
CASES = [
    (kind, view)
    for kind in PROCESSORS
    for view in VIEWS
    if kind != "eomt" or (view.given == GIVEN and view.size[0] == view.size[1])
]


@pytest.mark.parametrize("subtask", ["instance", "panoptic"])
@pytest.mark.parametrize(("kind", "view"), CASES, ids=str)
def test_segments_are_those_of_the_processor(kind: str, subtask: str, view: View, tmp_path: Path) -> None:
    several = 0
    for threshold, mask_threshold, overlap in [(0.9, 0.5, 0.5), (0.5, 0.3, 0.0), (0.0, 0.5, 0.3)]:
        asked = queries(view)
        limits = {"threshold": threshold}
        if kind != "eomt" or subtask == "panoptic":
            limits.update(mask_threshold=mask_threshold, overlap_mask_area_threshold=overlap)
        wanted = expected(kind, subtask, asked, tmp_path, **limits)
        found = getattr(RULES[kind], subtask)(asked, Limits(threshold, mask_threshold, overlap, 10**9))
        assert_same(found, wanted)
        several += len(wanted)
    assert several > 5


@pytest.mark.parametrize(("kind", "view"), CASES, ids=str)
def test_classes_of_pixels_are_those_of_the_processor(kind: str, view: View, tmp_path: Path) -> None:
    asked = queries(view)
    process = processor(kind, tmp_path).post_process_semantic_segmentation
    (wanted,) = process(outputs_of(asked), target_sizes=[view.size])
    (band,) = maps.bands(RULES[kind].semantic(asked), view.seen, view.size)
    assert len(wanted.unique()) > 2
    np.testing.assert_array_equal(maps.largest(band).numpy(), wanted.numpy())


@pytest.mark.parametrize("kind", PROCESSORS)
def test_a_picture_that_was_extended_is_cut_after_its_masks_are_resized(kind: str, tmp_path: Path) -> None:
    whole, cut = View(GIVEN, GIVEN, scaled=False), View(GIVEN, (41, 57), scaled=False)
    scores = RULES[kind].semantic(queries(whole))
    (wanted,) = maps.bands(scores, GIVEN, GIVEN)
    (found,) = maps.bands(scores, cut.seen, cut.size)
    assert torch.equal(found, wanted[:, :41, :57])
    limits = Limits(0.3, 0.5, 0.0, 10**9)
    of_whole = list(RULES[kind].panoptic(queries(whole), limits))
    of_cut = list(RULES[kind].panoptic(queries(cut), limits))
    kept = [one for one in of_whole if one.mask[:41, :57].any()]
    assert len(of_cut) == len(kept) > 1
    for one, other in zip(of_cut, kept):
        np.testing.assert_array_equal(one.mask, other.mask[:41, :57])


@pytest.mark.parametrize("kind", PROCESSORS)
def test_rows_at_a_time_make_the_same_masks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(GIVEN, (97, 131), scaled=True)
    limits = Limits(0.3, 0.5, 0.1, 10**9)
    rules = RULES[kind]
    at_once = {sub: list(getattr(rules, sub)(queries(view), limits)) for sub in ("instance", "panoptic")}
    classes = rules.semantic(queries(view))
    monkeypatch.setattr(maps, "BAND", 20_000)
    torch.testing.assert_close(rules.semantic(queries(view)), classes)
    for subtask, wanted in at_once.items():
        found = list(getattr(rules, subtask)(queries(view), limits))
        assert [one.label for one in found] == [one.label for one in wanted]
        assert len(wanted) > 2
        for one, other in zip(found, wanted):
            assert (one.mask != other.mask).mean() < 1e-3  # where two masks are as large, but for rounding


@pytest.mark.parametrize("subtask", ["instance", "panoptic"])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_nothing_above_the_threshold_is_nothing_to_resize(
    kind: str, subtask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maps, "bands", None)
    monkeypatch.setattr(maps, "resized", None)
    asked = queries(View(GIVEN, (5000, 5000), scaled=True))
    assert not list(getattr(RULES[kind], subtask)(asked, Limits(1.0, 0.5, 0.5, 1)))


@pytest.mark.parametrize("subtask", ["instance", "panoptic"])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_more_masks_than_the_limit_are_refused_before_they_are_made(
    kind: str, subtask: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = getattr(RULES[kind], subtask)
    asked = queries(View(GIVEN, (97, 131), scaled=True))
    monkeypatch.setattr(maps, "bands", None)
    with pytest.raises(InputTooLarge, match=r"\d+ masks .*0\.1.* 97x131 .*more than the limit of 12707"):
        list(find(asked, Limits(0.1, 0.5, 0.5, 97 * 131)))


@pytest.mark.parametrize("overlap", [0.2, 0.2001])
@pytest.mark.parametrize("kind", ["maskformer", "detr"])
def test_who_wins_just_as_much_as_is_asked_is_as_the_processor_has_it(
    kind: str, overlap: float, tmp_path: Path
) -> None:
    classes = torch.full((2, CLASSES + 1), -9.0)
    classes[0, 1] = classes[1, 2] = 9.0
    masks = torch.full((2, 1, 5), 5.0)
    masks[1] = torch.tensor([-5.0, 9, 9, 9, 9])  # of its own five pixels the first query wins one
    asked = Queries(classes, masks, View((1, 5), (1, 5), scaled=False))
    limits = {"threshold": 0.5, "mask_threshold": 0.5, "overlap_mask_area_threshold": overlap}
    wanted = expected(kind, "panoptic", asked, tmp_path, **limits)
    assert len(wanted) == (2 if overlap == 0.2 else 1)
    assert_same(RULES[kind].panoptic(asked, Limits(0.5, 0.5, overlap, 10**9)), wanted)


def test_of_equal_scores_the_first_channel_is_the_largest() -> None:
    scores = torch.randint(0, 3, (7, 40, 30)).float()
    np.testing.assert_array_equal(maps.largest(scores).numpy(), np.argmax(scores.numpy(), 0))


@pytest.mark.parametrize("new", [(5, 7), (64, 64), (41, 130), (97, 31)])
def test_the_nearest_pixel_is_torchs(new: tuple[int, int]) -> None:
    mask = torch.rand(24, 31) > 0.5
    wanted = F.interpolate(mask[None, None].float(), size=new, mode="nearest")[0, 0] == 1
    assert torch.equal(maps.nearest(mask, new, new), wanted)
    assert torch.equal(maps.nearest(mask, new, (3, 4)), wanted[:3, :4])
