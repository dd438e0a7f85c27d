"""A batch on its way through the handler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from anyshape.items import ItemOrRefused
from handler.requests import Request


@dataclass
class Batch:
    """Requests, the items of all of them in one list, and where each request's items are in it."""

    requests: List[Request]
    items: List[ItemOrRefused]
    places: List[slice]
