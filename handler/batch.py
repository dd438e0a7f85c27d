"""A batch on its way through the handler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Dict, List, Tuple

from anyshape.items import Read
from handler.apis.base import Request
from handler.responses import Response


@dataclass
class Batch:
    """Requests, what the inputs of all of them became in one list, and where each request's are in it."""

    requests: List[Request]
    items: List[Read]
    places: List[slice]


@dataclass
class Answered:
    """Responses, one for each request, what their inputs had become, and the seconds spent on them: reading,
    running, answering.

    left: seconds from the start until an answer left early, by the place of its request.
    """

    responses: List[Response]
    read: List[Read] = field(default_factory=list)
    stages: Tuple[float, float, float] = (0.0, 0.0, 0.0)
    left: Dict[int, float] = field(default_factory=dict)

    def seconds(self, i: int) -> float:
        """What the i-th request took."""
        return self.left.get(i, sum(self.stages))

    def __add__(self, other: Answered) -> Answered:
        read, run, answer = (mine + its for mine, its in zip(self.stages, other.stages))
        return Answered(self.responses + other.responses, self.read + other.read, (read, run, answer))
