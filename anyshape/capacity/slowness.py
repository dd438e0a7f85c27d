"""How much longer calls take than the cost table says, as a running server has counted it.

    slowness = Slowness.of(client.scrape(), model_name="minilm")
    slowness.draw((64,), generator)      # 1.2: this call of bucket 64 takes 1.2 times what the table says

A table is measured when the machine has nothing else to do. Beside a frontend, other workers and neighbours
calls take longer, and not each the same: what workers count of it, bucket by bucket, is drawn from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Tuple

import numpy as np

from anyshape.buckets import Bucket, bucket_name
from anyshape.server.scrape import Scrape

COUNTED = "anyshape_call_duration_ratio"
ENOUGH = 30  # calls of a bucket; one with fewer is taken for as slow as all buckets together


@dataclass(frozen=True)
class Ratios:
    """A histogram of ratios: steps[i] to steps[i + 1] with the probability shares[i], and their mean."""

    steps: List[float]
    shares: List[float]
    mean: float

    @classmethod
    def of(cls, histogram: List[Tuple[float, float]], total: float) -> Ratios:
        """histogram: (upper bound, how many are no larger), rising; total: the sum of all ratios."""
        bounds = [bound for bound, _ in histogram]
        counts = np.diff([0.0, *(count for _, count in histogram)])
        bounds[-1] = 1.5 * bounds[-2]  # beyond the last bound
        steps = [0.8 * bounds[0], *bounds]
        middles = (np.array(steps[1:]) + np.array(steps[:-1])) / 2
        shares = counts / counts.sum()
        mean = float(total / counts.sum())
        scale = mean / (middles @ shares)  # within a step ratios need not lie evenly
        return cls([scale * step for step in steps], shares.tolist(), mean)

    def draw(self, generator: np.random.Generator) -> float:
        step = generator.choice(len(self.shares), p=self.shares)
        return float(generator.uniform(self.steps[step], self.steps[step + 1]))


@dataclass(frozen=True)
class Slowness:
    """all: the ratios of all buckets together, None where calls take what the table says. buckets: those of
    single ones, by name."""

    all: Ratios | None = None
    buckets: Dict[str, Ratios] = field(default_factory=dict)

    @classmethod
    def of(cls, scrape: Scrape, **labels: str) -> Slowness:
        """What a server has counted for the model with these labels; nothing if it has run no calls."""
        counts = scrape.by(f"{COUNTED}_count", "bucket", **labels)
        if sum(counts.values()) < ENOUGH:
            return cls()
        sums = scrape.by(f"{COUNTED}_sum", "bucket", **labels)
        return cls(
            Ratios.of(scrape.histogram(COUNTED, **labels), sum(sums.values())),
            {
                bucket: Ratios.of(scrape.histogram(COUNTED, **labels, bucket=bucket), sums[bucket])
                for bucket, count in counts.items()
                if count >= ENOUGH
            },
        )

    def draw(self, bucket: Bucket, generator: np.random.Generator) -> float:
        """Times the table's seconds that one call of a bucket takes."""
        ratios = self.buckets.get(bucket_name(bucket), self.all)
        return 1.0 if ratios is None else ratios.draw(generator)

    @property
    def mean(self) -> float:
        """Of all calls."""
        return 1.0 if self.all is None else self.all.mean
