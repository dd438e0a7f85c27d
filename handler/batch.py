"""A batch on its way through the handler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from anyshape.items import Read
from handler.apis.base import Request


@dataclass
class Batch:
    """Requests, what the inputs of all of them became in one list, and where each request's are in it."""

    requests: List[Request]
    items: List[Read]
    places: List[slice]
