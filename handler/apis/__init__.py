"""Other people's APIs, by the path behind a model's version: /predictions/minilm/1.0/v1/embeddings.

Each task says what it is asked through; nothing is imported before its path is named.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Mapping, Optional

from anyshape.registry import load
from handler.apis.base import OWN, Absent, Api, OtherApi, Served

_TEXT = {
    "info": "handler.apis.tei:Info",
    "health": "handler.apis.tei:Health",
    "ping": "handler.apis.tei:Health",
    "infer": "handler.apis.kserve:Infer",
}
APIS: Mapping[str, Mapping[str, str]] = {
    "sentence-embedding": {
        "v1/embeddings": "handler.apis.openai:Embeddings",
        "v1/models": "handler.apis.openai:Models",
        "embeddings": "handler.apis.openai:Embeddings",
        "embed": "handler.apis.tei:Embed",
        "similarity": "handler.apis.tei:Similarity",
    },
    "feature-extraction": {"embed_all": "handler.apis.tei:EmbedAll"},
    "multi-vector-embedding": {"embed_all": "handler.apis.tei:EmbedAll"},
    "sparse-embedding": {"embed_sparse": "handler.apis.tei:EmbedSparse"},
    "text-classification": {"predict": "handler.apis.tei:Predict", "rerank": "handler.apis.tei:Rerank"},
    "text-ranking": {"rerank": "handler.apis.tei:Rerank"},
}
# Whose client asks at a path that a task does not have: its error is in words that the client knows.
_WORDS = {
    "openai": "handler.apis.openai:OpenAi",
    "kserve": "handler.apis.kserve:Infer",
    "tei": "handler.apis.tei:Tei",
}
_OF_TEI = {"tokenize", "decode", *(name for paths in (*APIS.values(), _TEXT) for name in paths)}
_INFER = re.compile(r"v2/models/[^/]+(/versions/[^/]+)?/infer")
_TENSOR = {"name", "shape", "datatype"}


def offered(served: Served) -> Dict[str, str]:
    """The paths that the model's task is asked through, each with its ``module:Class``."""
    task = served.model.task
    return {**APIS.get(task.name, {}), **_TEXT} if not task.body.is_bytes else {}


def find_api(path: Optional[str], body: Any, served: Served) -> Api:
    """The API of a path: `path` is what stands behind the version, "" for nothing.

    None is a request that came along none of those paths: by gRPC, or one of KServe's. TorchServe says no
    more about it, so a body of named tensors, which is nothing else, is taken for KServe's version 2.
    A path that the task does not have is an API that refuses all, and lists the paths that there are.
    """
    if path is None and _has_tensors(body):
        path = "infer"
    path = (path or "").strip("/")
    if not path:
        return OWN
    known = offered(served)
    name = "infer" if _INFER.fullmatch(path) else path
    if name not in known:
        paths = ", ".join(sorted(known)) or "no other path"
        says = (
            f"nothing is at this path: {served.model.task.name} is asked at /predictions/{{model}}, or below "
            f"/predictions/{{model}}/{{version}}/ at {paths}"
        )
        whose = _whose(path)
        return Absent(served, says, load(_WORDS, OtherApi, whose, "api")(served) if whose else OWN)
    return load(known, OtherApi, name, "api")(served)


def _whose(path: str) -> Optional[str]:
    """Whose path this is; None for nobody's that is known."""
    if path.startswith("v1/") or path == "embeddings":
        return "openai"
    if path.startswith("v2/"):
        return "kserve"
    return "tei" if path in _OF_TEI else None


def _has_tensors(body: Any) -> bool:
    """Whether a decoded body can only be one of KServe's version 2."""
    inputs = body.get("inputs") if isinstance(body, Mapping) else None
    if not isinstance(inputs, list) or not inputs:
        return False
    return all(isinstance(tensor, Mapping) and set(tensor) >= _TENSOR for tensor in inputs)
