"""What raw heads of detectors mean, by family: maps of numbers into boxes. Pure numpy, one item at a time.

A head is ``[channels, rows, columns]``: a cell answers for the part of the picture, `stride` pixels wide and
high, that it lies over. Boxes are as in `boxes`: pixels of the picture that the model saw. What a family
calls its numbers stands in its docstring; each is its authors' own arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np

from anyshape.boxes import Detections, from_heads
from anyshape.buckets import Size

LARGEST_LOG = np.log(1000 / 16)  # torchvision's bound on a box's growth


@dataclass(frozen=True)
class Layout:
    """How a model's heads lie over its picture.

    strides: pixels for each cell, one for each level. anchors: for each level a list of (width, height): in
    pixels, for `ssd` relative to the picture. bins: of a distance's distribution (`yolov8`).
    """

    strides: Sequence[float]
    anchors: Sequence[Any] = ()
    bins: int = 16


Decode = Callable[[Sequence[Any], Layout, Size, float], Detections]


def yolov3(heads: Sequence[Any], layout: Layout, size: Size, threshold: float) -> Detections:
    """A map for each level, ``[anchors × (x, y, w, h, objectness, classes)]``. Redmon and Farhadi, 2018."""
    return from_heads(heads, layout.anchors, [int(stride) for stride in layout.strides], threshold)


def yolov5(heads: Sequence[Any], layout: Layout, size: Size, threshold: float) -> Detections:
    """The same maps with another arithmetic: centres reach half a cell beyond their own, sizes are squares
    (YOLOv5 and YOLOv7, Wang et al., 2022)."""
    found = []
    for head, anchors, stride in zip(heads, layout.anchors, layout.strides):
        sizes = np.asarray(anchors, np.float32)
        cells = _split(head, len(sizes))
        scores = _sigmoid(cells[:, 4:5]) * _sigmoid(cells[:, 5:])
        anchor, label, row, column = np.nonzero(scores > threshold)
        picked = _sigmoid(cells[anchor, :4, row, column])
        centre = (picked[:, :2] * 2 - 0.5 + np.stack([column, row], 1)) * stride
        half = (picked[:, 2:] * 2) ** 2 * sizes[anchor] / 2
        found.append((_corners(centre, half), scores[anchor, label, row, column], label))
    return _together(found)


def yolox(heads: Sequence[Any], layout: Layout, size: Size, threshold: float) -> Detections:
    """A map for each level, ``[x, y, w, h, objectness, classes]``, without anchors. Ge et al., 2021."""
    found = []
    for head, stride in zip(heads, layout.strides):
        (cells,) = _split(head, 1)
        scores = _sigmoid(cells[4:5]) * _sigmoid(cells[5:])
        label, row, column = np.nonzero(scores > threshold)
        picked = cells[:4, row, column].T
        centre = (picked[:, :2] + np.stack([column, row], 1)) * stride
        half = np.exp(np.minimum(picked[:, 2:], 20)) * stride / 2
        found.append((_corners(centre, half), scores[label, row, column], label))
    return _together(found)


def yolov8(heads: Sequence[Any], layout: Layout, size: Size, threshold: float) -> Detections:
    """A map for each level, ``[4 × bins, classes]``: distributions of the distances from a cell's centre to
    the four sides (Li et al., Generalized Focal Loss, 2020), in cells. YOLOv8 and those after it."""
    found = []
    for head, stride in zip(heads, layout.strides):
        (cells,) = _split(head, 1)
        scores = _sigmoid(cells[4 * layout.bins :])
        label, row, column = np.nonzero(scores > threshold)
        sides = cells[: 4 * layout.bins, row, column].T.reshape(-1, 4, layout.bins)
        powers = np.exp(sides - sides.max(-1, keepdims=True))
        distances = (powers / powers.sum(-1, keepdims=True)) @ np.arange(layout.bins, dtype=np.float32)
        centre = np.stack([column, row], 1) + np.float32(0.5)
        corners = np.concatenate([centre - distances[:, :2], centre + distances[:, 2:]], 1)
        found.append((corners * np.float32(stride), scores[label, row, column], label))
    return _together(found)


def retinanet(heads: Sequence[Any], layout: Layout, size: Size, threshold: float) -> Detections:
    """First the classes of each level, ``[anchors × classes]``, then the boxes, ``[anchors × 4]``: shift and
    logarithm of the growth of an anchor at the cell's corner, as torchvision's. Lin et al., 2017."""
    found = []
    levels = len(layout.anchors)
    for classes, boxes, anchors in zip(heads[:levels], heads[levels:], layout.anchors):
        sizes = np.asarray(anchors, np.float32)
        scores = _sigmoid(_split(classes, len(sizes)))
        anchor, label, row, column = np.nonzero(scores > threshold)
        picked = _split(boxes, len(sizes))[anchor, :, row, column]
        found.append(
            (
                _grown(picked, _corner(row, column, classes, size), sizes[anchor]),
                scores[anchor, label, row, column],
                label,
            )
        )
    return _together(found)


def ssd(heads: Sequence[Any], layout: Layout, size: Size, threshold: float) -> Detections:
    """First the classes of each level, ``[anchors × classes]`` of which the first is the background, then the
    boxes, ``[anchors × 4]``, as torchvision's SSD and SSDlite. Liu et al., 2016. A class keeps its number."""
    found = []
    levels = len(layout.anchors)
    whole = np.asarray([size[1], size[0]], np.float32)
    for classes, boxes, anchors in zip(heads[:levels], heads[levels:], layout.anchors):
        sizes = np.asarray(anchors, np.float32) * whole
        logits = _split(classes, len(sizes))
        powers = np.exp(logits - logits.max(1, keepdims=True))
        scores = powers / powers.sum(1, keepdims=True)
        scores[:, 0] = 0
        anchor, label, row, column = np.nonzero(scores > threshold)
        picked = _split(boxes, len(sizes))[anchor, :, row, column] / np.asarray([10, 10, 5, 5], np.float32)
        cells = np.asarray(classes.shape[:0:-1], np.float32)
        centre = (np.stack([column, row], 1) + np.float32(0.5)) / cells * whole
        found.append((_grown(picked, centre, sizes[anchor]), scores[anchor, label, row, column], label))
    return _together(found)


def fcos(heads: Sequence[Any], layout: Layout, size: Size, threshold: float) -> Detections:
    """First the classes of each level, then the four distances in strides (not below 0), then the
    centredness, as torchvision's. A score is the root of class × centredness. Tian et al., 2019."""
    found = []
    levels = len(layout.strides)
    for classes, boxes, centred, stride in zip(
        heads[:levels], heads[levels : 2 * levels], heads[2 * levels :], layout.strides
    ):
        scores = np.sqrt(_sigmoid(np.asarray(classes)) * _sigmoid(np.asarray(centred)))
        label, row, column = np.nonzero(scores > threshold)
        distances = np.asarray(boxes)[:, row, column].T * np.float32(stride)
        centre = _corner(row, column, classes, size)
        corners = np.concatenate([centre - distances[:, :2], centre + distances[:, 2:]], 1)
        found.append((corners, scores[label, row, column], label))
    return _together(found)


# name: (how it is read, maps for each level, whether it needs anchors)
HEADS: Dict[str, Tuple[Decode, int, bool]] = {
    "fcos": (fcos, 3, False),
    "retinanet": (retinanet, 2, True),
    "ssd": (ssd, 2, True),
    "yolov3": (yolov3, 1, True),
    "yolov5": (yolov5, 1, True),
    "yolov8": (yolov8, 1, False),
    "yolox": (yolox, 1, False),
}


def _corner(row: Any, column: Any, head: Any, size: Size) -> Any:
    """The upper left corners of cells in pixels. torchvision lays a level's cells over a picture by their
    number, in whole pixels, so that a cell of 64 is one of 48 in a picture of 96."""
    rows, columns = head.shape[-2:]
    return np.stack([column * (size[1] // columns), row * (size[0] // rows)], 1).astype(np.float32)


def _split(head: Any, anchors: int) -> Any:
    """``[anchors, numbers, rows, columns]``."""
    return np.asarray(head, dtype=np.float32).reshape(anchors, -1, *head.shape[-2:])


def _grown(picked: Any, centre: Any, sizes: Any) -> Any:
    """Anchors with these centres and sizes, shifted and grown: R-CNN's arithmetic (Girshick et al., 2014)."""
    half = np.exp(np.minimum(picked[:, 2:], LARGEST_LOG)) * sizes / 2
    return _corners(picked[:, :2] * sizes + centre, half)


def _corners(centre: Any, half: Any) -> Any:
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def _together(found: List[Detections]) -> Detections:
    return tuple(np.concatenate(parts) for parts in zip(*found))  # type: ignore[return-value]


def _sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))
