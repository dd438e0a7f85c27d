"""A path into what is asked of which model, and in whose words errors are told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from anyshape.front.errors import MethodNotAllowed, NotFound

# Paths of other clients that name no model. What stands behind the model's version is the path itself.
WITHOUT_MODEL = {
    "/v1/embeddings": "openai",
    "/v1/models": "openai",
    "/embeddings": "openai",
    "/embed": "tei",
    "/embed_all": "tei",
    "/embed_sparse": "tei",
    "/predict": "tei",
    "/rerank": "tei",
    "/similarity": "tei",
    "/info": "tei",
}
# Answered here, without a token.
LIVE = ("/livez", "/v2/health/live")
READY = ("/readyz", "/v2/health/ready", "/health", "/ping")
ASKED_WITH_GET = ("v1/models", "info", "health", "ping")

_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_BEHIND = rf"{_NAME}(?:/{_NAME}){{0,7}}"  # no empty part, and none that begins with a dot
_PREDICTIONS = re.compile(rf"/predictions/({_NAME})(?:/({_NAME})(?:/({_BEHIND})?)?)?")
_KSERVE = re.compile(rf"/v2/models/({_NAME})(?:/versions/({_NAME}))?(/infer|/ready)?")
_READY = re.compile(rf"/readyz/({_NAME})")


@dataclass(frozen=True)
class Route:
    """What a path means.

    local: "live" or "ready", answered by the front; "" is handed to TorchServe. model: None where the path
    names none. version: None for the model's default one. behind: the path behind the version; None where
    TorchServe is to take the model's own contract at /predictions/MODEL. words: whose error bodies.
    """

    local: str = ""
    model: Optional[str] = None
    version: Optional[str] = None
    behind: Optional[str] = None
    words: str = ""


def find_route(method: str, path: str) -> Route:
    """The route of a path without its query. Raises NotFound or MethodNotAllowed."""
    route = _find(path)
    if route is None:
        raise NotFound(
            "nothing is at this path: ask POST /predictions/{model}, or one of "
            + ", ".join(sorted(WITHOUT_MODEL))
        )
    allowed: tuple[str, ...]
    if route.local:
        allowed = ("GET", "HEAD")
    elif route.behind in ASKED_WITH_GET:
        allowed = ("GET", "POST")
    else:
        allowed = ("POST",)
    if method not in allowed:
        raise MethodNotAllowed(f"{path} is asked with {' or '.join(allowed)}", ", ".join(allowed))
    return route


def _find(path: str) -> Optional[Route]:
    match = _PREDICTIONS.fullmatch(path)
    if match:
        model, version, behind = match.groups()
        return Route(model=model, version=version, behind=behind, words=_words(behind or ""))
    words = WITHOUT_MODEL.get(path)
    if words:
        return Route(behind=path[1:], words=words)
    if path in LIVE:
        return Route("live")
    if path in READY:
        return Route("ready")
    match = _READY.fullmatch(path)
    if match:
        return Route("ready", match[1])
    match = _KSERVE.fullmatch(path)
    if match and match[3] == "/ready":
        return Route("ready", match[1], match[2])
    if match and match[3] == "/infer":
        return Route(model=match[1], version=match[2], behind="infer", words="kserve")
    return None


def words_of(path: str) -> str:
    """Whose clients ask at a path, also where nothing is there: errors are told in their words."""
    match = _PREDICTIONS.fullmatch(path)
    return _words((match[3] or "") if match else path[1:])


def _words(behind: str) -> str:
    """Whose words the handler uses at a path behind a version."""
    if behind.startswith("v2/") or behind == "infer":
        return "kserve"
    return WITHOUT_MODEL.get(f"/{behind}", "openai" if behind.startswith("v1/") else "")
