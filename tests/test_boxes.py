"""Decoding and suppression, against the plainest code that says the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyshape.boxes import CANDIDATES, Detections, from_heads, from_queries, inside, suppress

sides = st.integers(0, 24)


@st.composite
def detections(draw: st.DrawFn) -> Detections:
    """Boxes on a coarse grid, so that they often touch, coincide, are empty or tie in score."""
    rows = draw(
        st.lists(st.tuples(sides, sides, sides, sides, st.integers(0, 10), st.integers(0, 2)), max_size=25)
    )
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h, _, _ in rows], np.float32).reshape(-1, 4)
    return boxes, np.array([r[4] / 10 for r in rows], np.float32), np.array([r[5] for r in rows], int)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union > 0 else 0.0


def suppressed(found: Detections, limit: float) -> list[int]:
    """Best first; one that overlaps a kept one of its class by more than the limit goes."""
    boxes, scores, labels = found
    kept: list[int] = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], i)):
        if all(labels[i] != labels[k] or overlap(boxes[i], boxes[k]) <= limit for k in kept):
            kept.append(i)
    return kept


@settings(max_examples=200, deadline=None)
@given(detections(), st.sampled_from([0.0, 0.213, 0.45, 0.7, 1.0]))
def test_suppression_is_that_of_the_definition(found: Detections, limit: float) -> None:
    kept = suppressed(found, limit)
    for mine, given_ in zip(suppress(found, limit), found):
        np.testing.assert_array_equal(mine, given_[kept])


def test_classes_do_not_suppress_each_other() -> None:
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    found = boxes, np.array([0.5, 0.9, 0.7], np.float32), np.array([1, 1, 2])
    assert suppress(found, 0.5)[1].tolist() == pytest.approx([0.9, 0.7])


def test_a_flood_of_boxes_is_cut_to_the_best() -> None:
    count = 200_000
    noise = np.random.default_rng(0)
    corner = noise.random((count, 2)).astype(np.float32) * 1e6
    scores = noise.random(count).astype(np.float32)
    found = np.concatenate([corner, corner + 1], axis=1), scores, np.zeros(count, int)
    boxes, kept, _ = suppress(found, 0.5)
    assert len(boxes) <= CANDIDATES
    np.testing.assert_array_equal(kept, np.sort(scores)[::-1][: len(kept)])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 4), st.integers(1, 5)), st.sampled_from([0.02, 0.3])
)
def test_heads_decode_cell_by_cell(seed: int, cells: tuple[int, int], threshold: float) -> None:
    noise = np.random.default_rng(seed)
    anchors, strides, classes = [[(10, 20), (30, 5)], [(3, 4), (8, 8)]], [32, 16], 3
    shapes = [cells, (cells[0] * 2, cells[1] * 2)]
    heads = [noise.normal(0, 2, (2 * (5 + classes), *shape)).astype(np.float32) for shape in shapes]
    expected = []
    for head, sizes, stride in zip(heads, anchors, strides):
        for a, (width, height) in enumerate(sizes):
            for row in range(head.shape[1]):
                for column in range(head.shape[2]):
                    cell = head[a * (5 + classes) : (a + 1) * (5 + classes), row, column].tolist()
                    x, y = (sigmoid(cell[0]) + column) * stride, (sigmoid(cell[1]) + row) * stride
                    w, h = math.exp(cell[2]) * width, math.exp(cell[3]) * height
                    for label in range(classes):
                        score = sigmoid(cell[4]) * sigmoid(cell[5 + label])
                        if score > threshold:
                            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
                            expected.append((*box, score, label))
    boxes, scores, labels = from_heads(heads, anchors, strides, threshold)
    found = np.column_stack([boxes, scores, labels]) if len(boxes) else np.zeros((0, 6))
    order = np.lexsort(found.T[::-1])
    wanted = np.array(expected).reshape(-1, 6)
    np.testing.assert_allclose(found[order], wanted[np.lexsort(wanted.T[::-1])], rtol=1e-4, atol=1e-3)


def test_wild_heads_give_finite_boxes() -> None:
    head = np.full((8, 2, 2), 1e4, np.float32)
    boxes, scores, _ = from_heads([head, -head], [[(10, 10)], [(10, 10)]], [32, 16], 0.5)
    assert np.isfinite(boxes).all()
    assert scores.tolist() == [1.0] * 12
    assert np.isfinite(inside((boxes, scores, np.zeros(12)), (64, 64))[0]).all()


def test_no_box_above_the_threshold_is_no_box() -> None:
    found = from_heads([np.full((8, 2, 2), -9, np.float32)], [[(10, 10)]], [32], 0.5)
    assert [part.shape for part in suppress(inside(found, (64, 64)), 0.5)] == [(0, 4), (0,), (0,)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.6]))
def test_queries_decode_one_by_one(seed: int, threshold: float) -> None:
    noise = np.random.default_rng(seed)
    logits = noise.normal(0, 3, (7, 4)).astype(np.float32)
    relative = noise.random((7, 4)).astype(np.float32)
    expected = []
    for row, (x, y, w, h) in zip(logits.tolist(), relative.tolist()):
        powers = [math.exp(value) for value in row]
        scores = [power / sum(powers) for power in powers[:-1]]  # the last one is "no object"
        label = max(range(3), key=lambda i: scores[i])
        if scores[label] > threshold:
            box = ((x - w / 2) * 200, (y - h / 2) * 100, (x + w / 2) * 200, (y + h / 2) * 100)
            expected.append((*box, scores[label], label))
    found = np.column_stack(from_queries(logits, relative, (100, 200), threshold))
    np.testing.assert_allclose(found, np.array(expected).reshape(-1, 6), rtol=1e-4, atol=1e-3)


def test_boxes_centred_outside_go_and_the_others_are_clipped() -> None:
    boxes = np.array([[-4, 2, 8, 6], [90, 10, 130, 20], [70, 30, 110, 70], [5, 55, 9, 75]], np.float32)
    found = inside((boxes, np.array([1, 2, 3, 4]), np.array([0, 1, 2, 3])), (60, 100))
    assert found[0].tolist() == [[0, 2, 8, 6], [70, 30, 100, 60]]
    assert found[1].tolist() == [1, 3]
    assert found[2].tolist() == [0, 2]
