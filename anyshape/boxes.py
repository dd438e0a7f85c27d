"""Boxes out of a detector's raw outputs. Pure numpy: no detector's own library is needed to serve it."""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

import numpy as np

from anyshape.buckets import Size

CANDIDATES = 1000  # the best boxes that suppression looks at: its time grows with their square

# Boxes are float32 [n, 4]: left, top, right, bottom, in pixels of the picture the model saw.
Detections = Tuple[Any, Any, Any]  # boxes [n, 4], scores [n], classes [n]


def from_heads(heads: Sequence[Any], anchors: Any, strides: Sequence[int], threshold: float) -> Detections:
    """Boxes from raw YOLOv3 heads ``[anchors × (5 + classes), rows, columns]``, above `threshold`.

    A cell's box: its centre is sigmoid(x, y) into the cell, its size the anchor × exp(w, h), its score
    sigmoid(objectness) × sigmoid(class), as in YOLOv3 (Redmon and Farhadi, 2018), every class for itself.
    """
    found: List[Detections] = []
    for head, head_anchors, stride in zip(heads, anchors, strides):
        sizes = np.asarray(head_anchors, dtype=np.float32)
        rows, columns = head.shape[-2:]
        cells = np.asarray(head, dtype=np.float32).reshape(len(sizes), -1, rows, columns)
        objectness = _sigmoid(cells[:, 4])
        anchor, row, column = np.nonzero(objectness > threshold)
        picked = cells[anchor, :, row, column]
        scores = objectness[anchor, row, column, None] * _sigmoid(picked[:, 5:])
        box, label = np.nonzero(scores > threshold)
        centre = (_sigmoid(picked[:, :2]) + np.stack([column, row], axis=1)) * stride
        half = np.exp(np.minimum(picked[:, 2:4], 20)) * sizes[anchor] / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        found.append((boxes[box], scores[box, label], label))
    return tuple(np.concatenate(parts) for parts in zip(*found))  # type: ignore[return-value]


def from_queries(logits: Any, boxes: Any, size: Size, threshold: float) -> Detections:
    """Boxes from DETR's queries: class logits ``[queries, classes + 1]``, boxes ``[queries, 4]``.

    Boxes are centre and size relative to the picture, the last class is "no object"
    (Carion et al., 2020).
    """
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores = (powers / powers.sum(axis=-1, keepdims=True))[:, :-1]
    labels = scores.argmax(axis=-1)
    best = scores[np.arange(len(labels)), labels]
    kept = best > threshold
    return _corners_of(boxes[kept], size), best[kept], labels[kept]


def from_sigmoids(logits: Any, boxes: Any, size: Size, threshold: float, most: int) -> Detections:
    """Boxes from the queries of Deformable DETR and its kin: every class of a query by itself, a sigmoid of
    ``[queries, classes]``; of all, the best `most` (Zhu et al., 2021)."""
    scores = _sigmoid(logits).ravel()
    best = np.argsort(-scores, kind="stable")[:most]
    best = best[scores[best] > threshold]
    query, label = np.divmod(best, logits.shape[-1])
    return _corners_of(boxes[query], size), scores[best], label


def _corners_of(boxes: Any, size: Size) -> Any:
    """Centres and sizes relative to the picture as corners in pixels."""
    height, width = size
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    return corners * np.asarray([width, height, width, height], np.float32)


def inside(detections: Detections, size: Size) -> Detections:
    """Without the boxes whose centre lies outside the picture, the others clipped to it."""
    boxes, scores, labels = detections
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    kept = ((centre >= 0) & (centre <= np.asarray([size[1], size[0]], np.float32))).all(axis=1)
    return clipped((boxes[kept], scores[kept], labels[kept]), size)


def clipped(detections: Detections, size: Size) -> Detections:
    """All boxes, clipped to the picture."""
    boxes, scores, labels = detections
    height, width = size
    return np.clip(boxes, 0, np.asarray([width, height, width, height], np.float32)), scores, labels


def suppress(detections: Detections, overlap: float) -> Detections:
    """Non-maximum suppression, class by class: of boxes that overlap by more than `overlap`, the best one.

    Returns them best first. Overlap is intersection over union. Of more than 1000 boxes, which only a very
    low threshold lets through, the best 1000 take part.
    """
    boxes, scores, labels = detections
    order = np.argsort(-scores, kind="stable")[:CANDIDATES]
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    kept: List[int] = []
    waiting = np.arange(len(scores))
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        same = labels[waiting] == labels[best]
        waiting = waiting[~(same & (_overlap(boxes[best], boxes[waiting]) > overlap))]
    return boxes[kept], scores[kept], labels[kept]


def _overlap(box: Any, others: Any) -> Any:
    corner = np.maximum(box[:2], others[:, :2])
    sides = np.clip(np.minimum(box[2:], others[:, 2:]) - corner, 0, None)
    shared = sides[:, 0] * sides[:, 1]
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    return shared / np.maximum(areas + (box[2] - box[0]) * (box[3] - box[1]) - shared, 1e-9)


def _sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))
