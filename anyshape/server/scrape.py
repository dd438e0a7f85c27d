"""The numbers that a server publishes for Prometheus, read.

before, after = Scrape.of(text), Scrape.of(later_text)
spent = after.since(before)
spent.total("anyshape_requests_total", model_name="minilm")
spent.quantile("anyshape_request_duration_seconds", 0.99, model_name="minilm")    # seconds
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Dict, FrozenSet, List, Tuple

from anyshape.server.checks import ServeError

Series = Tuple[str, FrozenSet[Tuple[str, str]]]  # a sample's name and its labels
# A sample's line, TorchServe's comma behind the last label included. (prometheus-client would rename counters
# that do not end in _total.)
SAMPLE = re.compile(
    r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>[+-]?(?:[\d.]+(?:[eE][+-]?\d+)?|Inf|NaN))(?:\s+-?\d+)?\s*"
)
LABEL = re.compile(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Scrape:
    """Samples by name and labels."""

    values: Dict[Series, float]

    @classmethod
    def of(cls, text: str) -> Scrape:
        """Raises ServeError if this is not in Prometheus' text format."""
        found: Dict[Series, float] = {}
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            match = SAMPLE.fullmatch(line)
            if match is None:
                raise ServeError(f"these are no metrics in Prometheus' text format: {line[:80]!r}")
            labels = frozenset((key, _plain(value)) for key, value in LABEL.findall(match["labels"] or ""))
            found[match["name"], labels] = float(match["value"])
        return cls(found)

    def since(self, earlier: Scrape) -> Scrape:
        """What was added since an earlier scrape; all of it where the server has begun anew."""
        left = {key: value - earlier.values.get(key, 0.0) for key, value in self.values.items()}
        return Scrape({key: self.values[key] if value < 0 else value for key, value in left.items()})

    def starting(self, start: str) -> Dict[Series, float]:
        """The samples whose names start so."""
        return {key: value for key, value in self.values.items() if key[0].startswith(start)}

    def by(self, name: str, label: str, **labels: str) -> Dict[str, float]:
        """Sums over all series of this name with these labels, by the value of another label."""
        wanted = frozenset(labels.items())
        found: Dict[str, float] = defaultdict(float)
        for (known, having), value in self.values.items():
            if known == name and wanted <= having:
                found[dict(having).get(label, "")] += value
        return dict(found)

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of this name that have these labels; 0.0 where there are none."""
        return sum(self.by(name, "", **labels).values())

    def histogram(self, name: str, **labels: str) -> List[Tuple[float, float]]:
        """(upper bound, how many are no larger), rising."""
        return sorted(
            (float(step), count) for step, count in self.by(f"{name}_bucket", "le", **labels).items()
        )

    def quantile(self, name: str, q: float, **labels: str) -> float:
        """As Prometheus' histogram_quantile: linear within a step, and the last bound beyond it; NaN of
        nothing."""
        steps = self.histogram(name, **labels)
        if not steps or not steps[-1][1]:
            return math.nan
        rank, low, below = q * steps[-1][1], 0.0, 0.0
        for high, count in steps:
            if count >= rank:
                if math.isinf(high):
                    return low
                return low + (high - low) * (rank - below) / (count - below) if count > below else high
            low, below = high, count
        return low


def _plain(value: str) -> str:
    """A label's value as it is meant."""
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], value)
