"""Runs a job in this process, chunk after chunk."""

from __future__ import annotations

from typing import Iterator, List, Optional, Tuple

from anyshape.scoring.chunks import Chunk
from anyshape.scoring.job import Job
from anyshape.scoring.scorer import Scorer


def score_here(job: Job, chunks: List[Chunk], cores: Optional[int] = None) -> Iterator[Tuple[int, int]]:
    """Write the part of each chunk; after each, how many rows it has and how many of them are errors."""
    scorer = Scorer(job, cores)
    for chunk in chunks:
        yield scorer.write(chunk)
