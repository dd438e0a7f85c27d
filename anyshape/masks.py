"""Masks of pixels out of queries, each of which says a class and a mask: MaskFormer's and its kin's.

The rules are those of the image processors of transformers (`post_process_semantic_segmentation`,
`…_instance_…` and `…_panoptic_…`), where no classes are fused. They are written anew, for a worker has no
transformers, and because at a picture's size the masks of all queries would fill its memory: only those that
may be part of the answer are resized, a few rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterator, List, NamedTuple, Tuple

import numpy as np
import torch

from anyshape import maps
from anyshape.buckets import Size
from anyshape.errors import InputTooLarge


class Segment(NamedTuple):
    """mask: bool ``[height, width]`` of the picture that was sent."""

    label: int
    score: float
    mask: np.ndarray


@dataclass(frozen=True)
class View:
    """A picture as the model was given it, (height, width), and as it was sent: the first part of that, or,
    where it was `scaled`, the whole of it at another size."""

    given: Size
    size: Size
    scaled: bool

    @property
    def seen(self) -> Size:
        """What masks are resized to before they are cut to the picture's own size."""
        return self.size if self.scaled else self.given


@dataclass(frozen=True)
class Limits:
    """threshold: of a query's score; mask_threshold: of a pixel's; overlap: how much of its own mask a query
    must win; pixels: the most that all masks of one picture may have together."""

    threshold: float
    mask_threshold: float
    overlap: float
    pixels: int

    def check(self, masks: int, size: Size) -> None:
        """Raises InputTooLarge for more masks than may be made of one picture."""
        if masks * size[0] * size[1] > self.pixels:
            raise InputTooLarge(
                f"{masks} masks are above the threshold {self.threshold}, of {size[0]}x{size[1]} pixels "
                f"each: more than the limit of {self.pixels} together "
                "(handler.task_options.max_mask_pixels); ask for a higher threshold, or send a smaller "
                "picture"
            )


@dataclass
class Queries:
    """What a model says of one picture.

    classes: logits ``[queries, classes + 1]``, the last of which is "nothing". masks: logits ``[queries,
    height, width]``, of the picture alone. Both float32.
    """

    classes: torch.Tensor
    masks: torch.Tensor
    view: View


class MaskFormer:
    """MaskFormer's rules (Cheng et al., 2021), and those of a model of which nothing else is known."""

    nothing = True  # whether the last class means that there is nothing

    def finer(self, masks: torch.Tensor, view: View) -> torch.Tensor:
        """Mask logits at the resolution where they become probabilities."""
        return masks

    def semantic(self, queries: Queries) -> torch.Tensor:
        """How much each class is at each pixel: ``[classes, height, width]``, to be resized yet."""
        weights = queries.classes.softmax(-1)
        if self.nothing:
            weights = weights[:, :-1]
        height, width = self.finer(queries.masks[:1], queries.view).shape[-2:]
        scores = torch.zeros(weights.shape[1], height, width)
        step = max(1, maps.BAND // (height * width))
        for first in range(0, len(weights), step):  # a few queries at a time, as they are larger then
            probabilities = self.finer(queries.masks[first : first + step], queries.view).sigmoid()
            scores += torch.einsum("qc,qhw->chw", weights[first : first + step], probabilities)
        return scores

    def panoptic(self, queries: Queries, limits: Limits) -> Iterator[Segment]:
        """Segments that do not overlap, in the order of their queries. Raises InputTooLarge."""
        masks, scores, labels = _of_something(queries, limits)
        if len(scores):
            masks = self.finer(masks, queries.view).sigmoid()
            yield from _contested(masks, scores, labels, queries.view, limits)

    def instance(self, queries: Queries, limits: Limits) -> Iterator[Segment]:
        """A segment for each candidate whose score, times the mean probability inside its mask, reaches the
        threshold; a later one covers an earlier one. Raises InputTooLarge."""
        scores, labels, which = self.candidates(queries)
        high = scores >= limits.threshold  # the mean is 1 at most, so no other can reach it
        limits.check(int(high.sum()), queries.view.size)
        on_top = np.full(queries.view.size, -1, np.int16)
        found: List[Tuple[int, float]] = []
        for index in high.nonzero()[:, 0]:
            mean, mask = self.inside(queries.masks[which[index]], queries.view)
            score = float(scores[index] * mean)
            if mask.any() and score >= limits.threshold:
                on_top[mask.numpy()] = len(found)
                found.append((int(labels[index]), round(score, 6)))
        for place, (label, score) in enumerate(found):
            yield Segment(label, score, on_top == place)

    def candidates(self, queries: Queries) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Score, class and query of each possible instance: the best pairs of a query and a class, as many as
        there are queries. In torch's order of `topk`, as the processors have it."""
        scores = queries.classes.softmax(-1)[:, :-1]
        best, place = scores.flatten().topk(len(scores), sorted=False)
        return best, place % scores.shape[1], torch.div(place, scores.shape[1], rounding_mode="floor")

    def inside(self, mask: torch.Tensor, view: View) -> Tuple[torch.Tensor, torch.Tensor]:
        """The mean probability where a mask's logits are above 0, and these pixels of the picture."""
        logits = self.finer(mask[None], view)[0]
        return _mean_inside(logits), maps.nearest(logits > 0, view.seen, view.size)


class Mask2Former(MaskFormer):
    """Mask2Former's (Cheng et al., 2022): whatever the picture's size, its masks are resized to one."""

    def finer(self, masks: torch.Tensor, view: View) -> torch.Tensor:
        return maps.resized(masks, (384, 384))


class OneFormer(MaskFormer):
    """OneFormer's (Jain et al., 2023): instances do not overlap, and it is logits that decide. Its processor
    smooths masks that it makes smaller; its own, a quarter of the picture, are not."""

    def instance(self, queries: Queries, limits: Limits) -> Iterator[Segment]:
        scores, labels, which = self.candidates(queries)
        high = scores > limits.threshold
        limits.check(int(high.sum()), queries.view.size)
        if high.any():
            masks = queries.masks[which[high]]
            yield from _contested(masks, scores[high], labels[high], queries.view, limits)


class Detr(MaskFormer):
    """DETR's (Carion et al., 2020): instances are the panoptic segments."""

    def instance(self, queries: Queries, limits: Limits) -> Iterator[Segment]:
        return self.panoptic(queries, limits)


class ConditionalDetr(Detr):
    """Conditional DETR's (Meng et al., 2021): of a pixel's classes none is nothing."""

    nothing = False


class Eomt(MaskFormer):
    """EoMT's (Kerssies et al., 2025): logits are resized, not probabilities, to what the model was given and
    then to the picture; a query has one class."""

    def finer(self, masks: torch.Tensor, view: View) -> torch.Tensor:
        return maps.resized(masks, view.given)

    def panoptic(self, queries: Queries, limits: Limits) -> Iterator[Segment]:
        masks, scores, labels = _of_something(queries, limits)
        if len(scores):
            masks = self.finer(masks, queries.view) if queries.view.scaled else masks
            yield from _contested(masks, scores, labels, queries.view, limits, logits=True)

    def candidates(self, queries: Queries) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scores, labels = queries.classes.softmax(-1)[:, :-1].max(-1)
        return scores, labels, torch.arange(len(scores))

    def inside(self, mask: torch.Tensor, view: View) -> Tuple[torch.Tensor, torch.Tensor]:
        height, width = view.size
        logits = maps.resized(self.finer(mask[None], view), view.seen)[0, :height, :width]
        return _mean_inside(logits), logits > 0


# By the `model_type` of transformers' configurations.
RULES: Dict[str, MaskFormer] = {
    "conditional_detr": ConditionalDetr(),
    "detr": Detr(),
    "eomt": Eomt(),
    "eomt_dinov3": Eomt(),
    "mask2former": Mask2Former(),
    "maskformer": MaskFormer(),
    "oneformer": OneFormer(),
}


def _of_something(queries: Queries, limits: Limits) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mask logits, score and class of the queries whose best class is something, above the threshold."""
    scores, labels = queries.classes.softmax(-1).max(-1)
    kept = (labels != queries.classes.shape[-1] - 1) & (scores > limits.threshold)
    limits.check(int(kept.sum()), queries.view.size)
    return queries.masks[kept], scores[kept], labels[kept]


def _contested(
    masks: torch.Tensor,
    scores: torch.Tensor,
    labels: torch.Tensor,
    view: View,
    limits: Limits,
    logits: bool = False,
) -> Iterator[Segment]:
    """Each pixel goes to the mask that is largest there, times its score; who wins too little of its own mask
    gets nothing: `compute_segments` of the processors. With `logits` as EoMT has it: masks become
    probabilities when they are resized, scores do not count for what a query's own mask is, and of what it
    wins a query keeps only that."""
    won, own = (torch.zeros(len(masks), dtype=torch.int64) for _ in range(2))
    winners = np.empty(view.size, np.int16)
    top = 0
    for band in maps.bands(masks, view.seen, view.size):
        values = band.sigmoid() if logits else band
        weighted = values * scores[:, None, None]
        winner = maps.largest(weighted)
        rows = winners[top : top + len(winner)]
        top += len(winner)
        rows[:] = winner.numpy()
        won += torch.from_numpy(np.bincount(rows.ravel(), minlength=len(masks)))
        for index, plane in enumerate(values if logits else weighted):
            above = plane >= limits.mask_threshold
            own[index] += above.count_nonzero()
            if logits:
                rows[(winner == index).logical_and_(~above).numpy()] = -1
    for index, share in enumerate((won / own).tolist()):  # a float: 0.2 as float32 is more than 0.2
        if own[index] and share > limits.overlap:
            mask = winners == index
            if mask.any():
                yield Segment(int(labels[index]), round(float(scores[index]), 6), mask)


def _mean_inside(logits: torch.Tensor) -> torch.Tensor:
    inside = logits > 0
    return (logits.sigmoid() * inside).sum() / (inside.sum() + 1e-6)
